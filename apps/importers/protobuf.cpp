#include "apps/importers/protobuf.h"

#include <bit>

#include "base/error.h"

namespace espalier {

void ProtobufReader::fail(const char* what) const {
    throw Error(Status::bad_model, "%s: byte %zu: %s", name_.c_str(), at_, what);
}

uint64_t ProtobufReader::varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (at_ == bytes_.size()) fail("expected the rest of a number, found the end");
        const auto byte = static_cast<unsigned char>(bytes_[at_++]);
        value |= uint64_t{byte & 0x7Fu} << shift;
        if (byte < 0x80) return value;
    }
    fail("expected a number of at most 10 bytes, found a longer one");
}

std::string_view ProtobufReader::take(uint64_t count) {
    if (count > bytes_.size() - at_) fail("expected a field within its message, found one that goes beyond");
    const std::string_view taken = bytes_.substr(at_, count);
    at_ += count;
    return taken;
}

bool ProtobufReader::next() {
    if (at_ == bytes_.size()) return false;
    const uint64_t key = varint();
    field_ = key >> 3;
    wire_ = static_cast<Wire>(key & 7);
    if (field_ == 0) fail("expected a field of a protocol buffer, found something else");
    switch (wire_) {
        case Wire::varint:
            integer_ = varint();
            return true;
        case Wire::fixed64:
            value_ = take(8);
            return true;
        case Wire::bytes:
            value_ = take(varint());
            return true;
        case Wire::fixed32:
            value_ = take(4);
            return true;
    }
    fail("expected a field of a protocol buffer, found something else");
}

void ProtobufReader::expect(Wire wire) const {
    if (wire_ != wire)
        throw Error(Status::bad_model, "%s: byte %zu: field %llu: expected kind %llu, found %llu",
                    name_.c_str(), at_, static_cast<unsigned long long>(field_),
                    static_cast<unsigned long long>(wire), static_cast<unsigned long long>(wire_));
}

uint64_t ProtobufReader::integer() const {
    expect(Wire::varint);
    return integer_;
}

float ProtobufReader::number() const {
    expect(Wire::fixed32);
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; ++i)
        bits |= uint32_t{static_cast<unsigned char>(value_[i])} << (8 * i);
    return std::bit_cast<float>(bits);
}

std::string_view ProtobufReader::bytes() const {
    expect(Wire::bytes);
    return value_;
}

}  // namespace espalier
