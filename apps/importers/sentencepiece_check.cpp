#include "apps/importers/sentencepiece_check.h"

#include <sentencepiece_processor.h>

#include "base/error.h"

namespace espalier {
namespace {

constexpr const char* hard_texts[] = {
    "",
    " ",
    "  two  spaces  inside and at the ends  ",
    "\n\t a \r\n b",
    "\xe2\x96\x81 \xe2\x96\x81\xe2\x96\x81",
    "<unk><s></s><0x41>",
    "caf\xc3\xa9 cafe\xcc\x81 \xef\xac\x81",
    "\xf0\x9f\x98\x80\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x9a\x80 \xe4\xbd\xa0\xe5\xa5\xbd",
    "\xc2\xa0\xe2\x80\xaf\xe3\x80\x80\xef\xbf\xbd",
    "1234567890 0.5e-3 a==b!!!??"};

class Comparison {
   public:
    Comparison(const std::string& path, const Bpe& ours) : path_(path), ours_(ours) {
        const auto status = theirs_.Load(path);
        if (!status.ok())
            throw Error(Status::bad_model, "%s: libsentencepiece: %s", path.c_str(),
                        status.ToString().c_str());
    }

    void run() {
        for (const char* text : hard_texts)
            compare(text);
        std::string before;
        for (int id = 0; id < theirs_.GetPieceSize(); ++id) {
            const std::string& piece = theirs_.IdToPiece(id);
            compare(piece);
            compare(before + piece);
            before = piece;
        }
    }

   private:
    void compare(const std::string& text) {
        const std::vector<int> expected = theirs_.EncodeAsIds(text);
        std::vector<int32_t> found(text.size() + 8);
        found.resize(ours_.encode(text, false, found, scratch_));
        if (found != std::vector<int32_t>(expected.begin(), expected.end()))
            throw Error(
                Status::unsupported,
                "%s: the text \"%.60s\": expected the %zu tokens of libsentencepiece, found %zu others",
                path_.c_str(), text.c_str(), expected.size(), found.size());
    }

    const std::string& path_;
    const Bpe& ours_;
    sentencepiece::SentencePieceProcessor theirs_;
    BpeScratch scratch_{std::pmr::get_default_resource()};
};

}  // namespace

void check_with_sentencepiece(const std::string& path, const Bpe& pieces) {
    Comparison(path, pieces).run();
}

}  // namespace espalier
