// Text files in one text: each begins with a line "-- NAME --" and ends where the next does. A corpus of them
// can be read and edited.
#pragma once

#include <map>
#include <string_view>

namespace espalier::fuzz {

class Archive {
   public:
    explicit Archive(std::string_view bytes) {
        std::string_view name;
        while (!bytes.empty()) {
            const size_t end = bytes.find('\n');
            const std::string_view line = bytes.substr(0, end);
            const size_t whole = end == std::string_view::npos ? line.size() : line.size() + 1;
            if (line.size() > 6 && line.starts_with("-- ") && line.ends_with(" --")) {
                name = line.substr(3, line.size() - 6);
                files_[name] = bytes.substr(whole, 0);
            } else if (!name.empty()) {
                std::string_view& text = files_[name];  // lines of one file lie end to end
                text = {text.data(), text.size() + whole};
            }
            bytes.remove_prefix(whole);
        }
    }
    bool has(std::string_view name) const { return files_.contains(name); }
    std::string_view text(std::string_view name) const {
        const auto place = files_.find(name);
        return place == files_.end() ? std::string_view() : place->second;
    }

   private:
    std::map<std::string_view, std::string_view> files_;
};

}  // namespace espalier::fuzz
