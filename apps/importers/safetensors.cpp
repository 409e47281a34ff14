#include "apps/importers/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/importers/json.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/float16.h"

namespace espalier {
namespace {

constexpr uint64_t max_header_bytes = 100'000'000;  // the format's own limit

uint64_t bytes_of_type(const std::string& type) {
    static const std::map<std::string, uint64_t, std::less<>> sizes{
        {"F64", 8}, {"I64", 8}, {"U64", 8},     {"F32", 4},     {"I32", 4},
        {"U32", 4}, {"F16", 2}, {"BF16", 2},    {"I16", 2},     {"U16", 2},
        {"I8", 1},  {"U8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"BOOL", 1}};
    const auto place = sizes.find(type);
    return place == sizes.end() ? 0 : place->second;
}

// nlohmann keeps the last of several equal keys; a file that names a tensor twice is refused instead.
nlohmann::json parse_header(std::string_view text, const std::string& path) {
    std::set<std::string> names;
    std::string twice;
    const auto watch = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
        if (depth > max_json_depth)
            throw Error(Status::bad_model, "%s: header: expected at most %d levels of JSON, found more",
                        path.c_str(), max_json_depth);
        if (depth == 1 && event == nlohmann::json::parse_event_t::key &&
            !names.insert(value.get<std::string>()).second)
            twice = value.get<std::string>();
        return true;
    };
    nlohmann::json header;
    try {
        header = nlohmann::json::parse(text.begin(), text.end(), watch);
    } catch (const nlohmann::json::exception& error) {
        throw Error(Status::bad_model, "%s: header: not valid JSON: %s", path.c_str(), error.what());
    }
    if (!twice.empty())
        throw Error(Status::bad_model, "%s: tensor %s: stands in the header twice", path.c_str(),
                    twice.c_str());
    if (!header.is_object())
        throw Error(Status::bad_model, "%s: header: expected a JSON object, found %s", path.c_str(),
                    header.type_name());
    return header;
}

}  // namespace

std::string shape_text(std::span<const uint64_t> shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); ++i)
        text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
    return text + "]";
}

Safetensors::Safetensors(const std::string& path)
    : path_(path), file_(path.c_str(), true, std::pmr::get_default_resource()) {
    parse();
}

void Safetensors::parse() {
    const auto bytes = file_.bytes();
    uint64_t header_bytes = 0;
    if (bytes.size() < sizeof(header_bytes))
        throw Error(Status::bad_model, "%s: expected at least 8 bytes, found %zu", path_.c_str(),
                    bytes.size());
    std::memcpy(&header_bytes, bytes.data(), sizeof(header_bytes));
    if (header_bytes > max_header_bytes || header_bytes > bytes.size() - sizeof(header_bytes))
        throw Error(Status::bad_model, "%s: header length at byte 0: expected at most %zu, found %llu",
                    path_.c_str(), bytes.size() - sizeof(header_bytes),
                    static_cast<unsigned long long>(header_bytes));
    const auto header = parse_header(
        {reinterpret_cast<const char*>(bytes.data()) + sizeof(header_bytes), header_bytes}, path_);
    const auto data = bytes.subspan(sizeof(header_bytes) + header_bytes);

    struct Place {
        uint64_t begin, end;
        std::string name;
    };
    std::vector<Place> places;
    for (const auto& [name, entry] : header.items()) {
        if (name == "__metadata__") continue;
        const auto fail = [&, &tensor = name](const std::string& what) {
            return Error(Status::bad_model, "%s: tensor %s: %s", path_.c_str(), tensor.c_str(), what.c_str());
        };
        const bool complete = entry.is_object() && entry.contains("dtype") && entry["dtype"].is_string() &&
                              entry.contains("shape") && entry["shape"].is_array() &&
                              entry.contains("data_offsets") && entry["data_offsets"].is_array() &&
                              entry["data_offsets"].size() == 2;
        if (!complete) throw fail("expected dtype, shape and two data_offsets");
        Tensor tensor;
        tensor.type = entry["dtype"].get<std::string>();
        uint64_t size = bytes_of_type(tensor.type);
        if (size == 0) throw fail("unknown dtype " + tensor.type);
        for (const auto& dimension : entry["shape"]) {
            if (!dimension.is_number_unsigned())
                throw fail("shape: expected counts, found " + dimension.dump().substr(0, 40));
            tensor.shape.push_back(dimension.get<uint64_t>());
            if (!checked_multiply(size, tensor.shape.back(), size)) throw fail("its size overflows");
        }
        const auto &first = entry["data_offsets"][0], &last = entry["data_offsets"][1];
        if (!first.is_number_unsigned() || !last.is_number_unsigned())
            throw fail("data_offsets: expected counts");
        const auto begin = first.get<uint64_t>(), end = last.get<uint64_t>();
        if (begin > end || end > data.size() || end - begin != size)
            throw fail("data_offsets " + std::to_string(begin) + " to " + std::to_string(end) +
                       ": expected " + std::to_string(size) + " bytes within " + std::to_string(data.size()));
        tensor.bytes = data.subspan(begin, size);
        places.push_back({begin, end, name});
        tensors_.emplace(name, std::move(tensor));
    }
    std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
        return a.begin < b.begin || (a.begin == b.begin && a.end < b.end);
    });
    uint64_t position = 0;
    for (const Place& place : places) {
        if (place.begin != position)
            throw Error(
                Status::bad_model,
                "%s: tensor %s: expected its data at %llu, right after the one before, found it at %llu",
                path_.c_str(), place.name.c_str(), static_cast<unsigned long long>(position),
                static_cast<unsigned long long>(place.begin));
        position = place.end;
    }
    if (position != data.size())
        throw Error(Status::bad_model, "%s: expected data of %llu bytes, found %zu", path_.c_str(),
                    static_cast<unsigned long long>(position), data.size());
}

const Safetensors::Tensor& Safetensors::check(const std::string& name,
                                              std::span<const uint64_t> shape) const {
    const Tensor& tensor = tensors_.at(name);
    if (!std::equal(shape.begin(), shape.end(), tensor.shape.begin(), tensor.shape.end()))
        throw Error(Status::bad_model, "%s: tensor %s: expected shape %s, found %s", path_.c_str(),
                    name.c_str(), shape_text(shape).c_str(), shape_text(tensor.shape).c_str());
    if (tensor.type != "F32" && tensor.type != "F16" && tensor.type != "BF16")
        throw Error(Status::unsupported, "%s: tensor %s: expected F32, F16 or BF16, found %s", path_.c_str(),
                    name.c_str(), tensor.type.c_str());
    return tensor;
}

std::vector<float> Safetensors::stacked(const std::vector<const Tensor*>& tensors) {
    std::vector<float> all;
    for (const Tensor* tensor : tensors) {
        const auto values = Safetensors::values(*tensor);
        all.insert(all.end(), values.begin(), values.end());
    }
    return all;
}

std::vector<float> Safetensors::values(const Tensor& tensor) {
    const bool wide = tensor.type == "F32", half = tensor.type == "F16";
    std::vector<float> values(tensor.bytes.size() / (wide ? 4 : 2));
    // The data need not be aligned: copied out number by number.
    if (wide) {
        std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
        return values;
    }
    for (size_t i = 0; i < values.size(); ++i) {
        uint16_t bits = 0;
        std::memcpy(&bits, tensor.bytes.data() + 2 * i, sizeof(bits));
        values[i] = half ? float_from_half(bits) : float_from_bfloat(bits);
    }
    return values;
}

}  // namespace espalier
