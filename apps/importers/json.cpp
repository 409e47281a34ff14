#include "apps/importers/json.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace espalier {

JsonFile::JsonFile(const std::string& path) : name_(path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Error(Status::io, "%s: cannot open: %s", path.c_str(), std::strerror(errno));
    try {
        value_ = nlohmann::json::parse(file, [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
            if (depth > max_json_depth)
                throw Error(Status::bad_model, "%s: expected at most %d levels of JSON, found more",
                            path.c_str(), max_json_depth);
            return true;
        });
    } catch (const nlohmann::json::exception& error) {
        throw Error(Status::bad_model, "%s: not valid JSON: %s", path.c_str(), error.what());
    }
    if (!value_.is_object())
        throw Error(Status::bad_model, "%s: expected a JSON object, found %s", path.c_str(),
                    value_.type_name());
}

bool JsonFile::exists(const std::string& path) {
    std::error_code ignored;
    return std::filesystem::is_regular_file(path, ignored);
}

void JsonFile::fail(const char* key, const char* expected) const {
    const std::string found =
        has(key) ? value_[key].dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 60)
                 : "nothing";
    throw Error(Status::bad_model, "%s: %s: expected %s, found %s", name_.c_str(), key, expected,
                found.c_str());
}

const nlohmann::json& JsonFile::at(const char* key, const char* expected) const {
    if (!has(key)) fail(key, expected);
    return value_[key];
}

uint32_t JsonFile::count(const char* key, uint32_t low, uint32_t high) const {
    const std::string expected = "an integer of " + std::to_string(low) + " to " + std::to_string(high);
    const auto& value = at(key, expected.c_str());
    if (!value.is_number_integer()) fail(key, expected.c_str());
    const auto number = value.get<int64_t>();
    if (number < static_cast<int64_t>(low) || number > static_cast<int64_t>(high))
        fail(key, expected.c_str());
    return static_cast<uint32_t>(number);
}

float JsonFile::number(const char* key) const {
    const auto& value = at(key, "a number");
    if (!value.is_number()) fail(key, "a number");
    const auto number = value.get<float>();
    if (!std::isfinite(number)) fail(key, "a finite number");
    return number;
}

std::string JsonFile::text(const char* key) const {
    const auto& value = at(key, "a string");
    if (!value.is_string()) fail(key, "a string");
    return value.get<std::string>();
}

bool JsonFile::flag(const char* key) const {
    const auto& value = at(key, "true or false");
    if (!value.is_boolean()) fail(key, "true or false");
    return value.get<bool>();
}

const nlohmann::json& JsonFile::array(const char* key) const {
    const auto& value = at(key, "an array");
    if (!value.is_array()) fail(key, "an array");
    return value;
}

}  // namespace espalier
