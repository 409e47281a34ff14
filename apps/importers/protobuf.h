// A protocol buffer, field by field, without a schema compiler (protobuf.dev, "Encoding").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace espalier {

class ProtobufReader {
   public:
    // name: of what is read, for messages.
    ProtobufReader(std::string name, std::string_view bytes) : name_(std::move(name)), bytes_(bytes) {}

    // Goes to the next field; false: there is none. Throws Error(bad_model) where bytes are no such message.
    bool next();
    uint64_t field() const { return field_; }
    // The value of the field. Throws Error(bad_model) where it is of another kind.
    uint64_t integer() const;
    bool flag() const { return integer() != 0; }
    float number() const;
    std::string_view bytes() const;

   private:
    enum class Wire : uint64_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };
    [[noreturn]] void fail(const char* what) const;
    void expect(Wire wire) const;
    uint64_t varint();
    std::string_view take(uint64_t count);

    std::string name_;
    std::string_view bytes_;
    size_t at_ = 0;
    uint64_t field_ = 0, integer_ = 0;
    Wire wire_ = Wire::varint;
    std::string_view value_;
};

}  // namespace espalier
