// Fields of JSON configuration files, read with one clear error each.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace espalier {

// Far deeper than any checkpoint's: the JSON library recurses where it copies and prints values.
inline constexpr int max_json_depth = 64;

// A parsed file that knows its name for messages.
class JsonFile {
   public:
    // Throws Error(io | bad_model).
    explicit JsonFile(const std::string& path);
    // A part of a file, named by where it is.
    JsonFile(std::string name, nlohmann::json value) : name_(std::move(name)), value_(std::move(value)) {}
    static bool exists(const std::string& path);

    const std::string& name() const { return name_; }
    const nlohmann::json& value() const { return value_; }
    bool has(const char* key) const {
        return value_.is_object() && value_.contains(key) && !value_[key].is_null();
    }

    // Each throws Error(bad_model) "FILE: KEY: expected …, found …" where the field is absent or of another
    // kind.
    uint32_t count(const char* key, uint32_t low, uint32_t high) const;
    float number(const char* key) const;
    std::string text(const char* key) const;
    bool flag(const char* key) const;
    const nlohmann::json& array(const char* key) const;
    // The same with a default for an absent field.
    uint32_t count_or(const char* key, uint32_t low, uint32_t high, uint32_t value) const {
        return has(key) ? count(key, low, high) : value;
    }
    std::string text_or(const char* key, const char* value) const { return has(key) ? text(key) : value; }
    bool flag_or(const char* key, bool value) const { return has(key) ? flag(key) : value; }

   private:
    const nlohmann::json& at(const char* key, const char* expected) const;
    [[noreturn]] void fail(const char* key, const char* expected) const;

    std::string name_;
    nlohmann::json value_;
};

}  // namespace espalier
