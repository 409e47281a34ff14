// Any bytes as a GLUE file of any task: an Error that says file and line, or rows whose every field can be
// used. The first byte chooses the task.
#include "apps/glue/tasks.h"
#include "apps/glue/tsv.h"
#include "tests/fuzz/fuzz.h"
#include "tests/temporary_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace espalier;
    using fuzz::require;
    static const test::TemporaryFolder folder;
    if (size == 0) return 0;
    const Task& task = tasks()[data[0] % tasks().size()];
    const std::string path = folder.path("rows.tsv");
    test::write_file(path, std::string_view(reinterpret_cast<const char*>(data) + 1, size - 1));
    const std::string_view labels[] = {"negative", "Positive"};
    fuzz::accepted([&] {
        size_t line = 0;
        for (const Example& row : read_examples(task, path)) {
            require(!row.label.empty() && row.line > line && row.is_pair == task.is_pair());
            require(row.a.size() + row.b.size() + row.label.size() < size);
            line = row.line;
            fuzz::accepted([&] { require(match_label(row.label, labels) < 2); });
        }
    });
    return 0;
}
