#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "apps/glue/metrics.h"
#include "apps/glue/tasks.h"
#include "apps/glue/tsv.h"
#include "apps/progress.h"
#include "base/error.h"

namespace {

using namespace espalier;
using std::string;

const string kData = string(ESPALIER_TEST_DATA) + "/glue/";

// A file with these bytes for as long as it lives.
class TemporaryFile {
   public:
    explicit TemporaryFile(const string& bytes)
        : path_(std::filesystem::temp_directory_path() /
                ("espalier_glue_" + std::to_string(getpid()) + ".tsv")) {  // ctest runs cases side by side
        std::ofstream(path_, std::ios::binary) << bytes;
    }
    ~TemporaryFile() { std::filesystem::remove(path_); }
    string path() const { return path_.string(); }

   private:
    std::filesystem::path path_;
};

template <class Call>
string error_of(Call call, Status status = Status::invalid_argument) {
    try {
        call();
    } catch (const Error& error) {
        CHECK(error.status() == status);
        return error.what();
    }
    return "no error";
}

// What reading these bytes complains about, without the path.
string complaint(const string& task, const string& bytes) {
    const TemporaryFile file(bytes);
    const string message = error_of([&] { read_examples(task_named(task), file.path()); });
    const std::size_t at = message.find(file.path() + ":");
    return at == 0 ? message.substr(file.path().size() + 1) : message;
}

// NaN stands for null and equals itself; 1e-9 is far below what any table prints.
bool same(double got, const nlohmann::json& expected) {
    if (expected.is_null()) return std::isnan(got);
    return std::fabs(got - expected.get<double>()) <= 1e-9;
}

nlohmann::json expectations() {
    std::ifstream file(kData + "metrics.json");
    REQUIRE(file.good());
    return nlohmann::json::parse(file);
}

}  // namespace

TEST_CASE("label metrics are scikit-learn's") {
    const nlohmann::json all = expectations();
    REQUIRE(all.at("labels").size() > 20);
    for (const nlohmann::json& one : all.at("labels")) {
        CAPTURE(one.at("name").get<string>());
        const auto predicted = one.at("predicted").get<std::vector<int>>();
        const auto expected = one.at("expected").get<std::vector<int>>();
        CHECK(same(accuracy(predicted, expected), one.at("accuracy")));
        CHECK(same(f1(predicted, expected), one.at("f1")));
        CHECK(same(matthews(predicted, expected), one.at("matthews")));
        CHECK(same(measure(Metric::matthews, predicted, expected), one.at("matthews")));
    }
}

TEST_CASE("score metrics are scipy's") {
    const nlohmann::json all = expectations();
    REQUIRE(all.at("scores").size() > 10);
    for (const nlohmann::json& one : all.at("scores")) {
        CAPTURE(one.at("name").get<string>());
        const auto predicted = one.at("predicted").get<std::vector<double>>();
        const auto expected = one.at("expected").get<std::vector<double>>();
        CHECK(same(pearson(predicted, expected), one.at("pearson")));
        CHECK(same(spearman(predicted, expected), one.at("spearman")));
        CHECK(same(measure(Metric::spearman, predicted, expected), one.at("spearman")));
    }
}

TEST_CASE("metrics of empty, unequal and non-finite input") {
    const std::vector<int> no_labels, one_label{1};
    const std::vector<double> no_scores, one_score{1.0}, two{1.0, 2.0};
    for (const Metric metric : {Metric::accuracy, Metric::f1, Metric::matthews}) {
        CHECK(std::isnan(measure(metric, no_labels, no_labels)));
        CHECK_THROWS_AS(measure(metric, no_labels, one_label), Error);
        CHECK_THROWS_AS(measure(metric, no_scores, no_scores), Error);
    }
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double infinity = std::numeric_limits<double>::infinity();
    for (const Metric metric : {Metric::pearson, Metric::spearman}) {
        CHECK(std::isnan(measure(metric, no_scores, no_scores)));
        CHECK(std::isnan(measure(metric, std::vector<double>{1.0, nan}, two)));
        CHECK_THROWS_AS(measure(metric, one_score, two), Error);
        CHECK_THROWS_AS(measure(metric, no_labels, no_labels), Error);
    }
    CHECK(std::isnan(pearson(std::vector<double>{1.0, infinity}, two)));
    CHECK(spearman(std::vector<double>{1.0, infinity}, two) == doctest::Approx(1.0));
}

TEST_CASE("the task table") {
    CHECK(tasks().size() == 9);
    CHECK(string(metric_name(task_named("stsb").metrics[1])) == "spearman");
    CHECK(string(metric_name(task_named("cola").metrics[0])) == "matthews");
    CHECK(task_named("mnli").labels[2] == "contradiction");
    CHECK(task_named("qqp").is_pair());
    CHECK_FALSE(task_named("cola").is_pair());
    CHECK(error_of([] { task_named("SST-2"); }) ==
          "task: expected one of sst2, cola, mrpc, stsb, rte, qnli, qqp, mnli, wnli, got 'SST-2'");
}

TEST_CASE("a label is an index or a name of the model's") {
    const std::vector<std::string_view> model{"CONTRADICTION", "neutral", "entailment", "Neutral"};
    CHECK(match_label("entailment", model) == 2);
    CHECK(match_label("contradiction", model) == 0);  // case gives way
    CHECK(match_label("Neutral", model) == 3);        // but not when a label fits exactly
    CHECK(match_label("3", model) == 3);
    CHECK(match_label("01", model) == 1);
    const string labels = "(0 CONTRADICTION, 1 neutral, 2 entailment, 3 Neutral)";
    for (const string text : {"4", "-1", "", "-", "1.0", " 1", "99999999999999999999999"}) {
        CHECK(error_of([&] { match_label(text, model); }) ==
              "label: expected one of the model's labels " + labels + ", got '" + text + "'");
    }
    CHECK(error_of([&] { match_label("0", {}); }).find("(it has none)") != string::npos);
}

TEST_CASE("a score is a finite number and nothing else") {
    CHECK(parse_score("5.000").value() == 5.0);
    CHECK(parse_score("0").value() == 0.0);
    for (const string text : {"", " 1", "1 ", "1,5", "nan", "inf", "1e999", "entailment"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_score(text).has_value());
    }
}

TEST_CASE("the nine official formats") {
    const auto read = [](const string& task) {
        return read_examples(task_named(task), kData + task + ".tsv");
    };
    const auto sst2 = read("sst2");
    REQUIRE(sst2.size() == 3);
    CHECK(sst2[0].a == "the pear tree is a quiet joy to look at ");
    CHECK(sst2[0].b.empty());
    CHECK_FALSE(sst2[0].is_pair);
    CHECK(sst2[0].label == "1");
    CHECK(sst2[0].line == 2);
    CHECK(std::isnan(sst2[0].score));
    CHECK(sst2[2].a == "he said \" prune it and was ignored ");

    const auto cola = read("cola");
    REQUIRE(cola.size() == 3);
    CHECK(cola[0].a == "The gardener tied the branch to the wall.");
    CHECK(cola[0].line == 1);
    CHECK(cola[1].label == "0");
    CHECK(cola[2].a == "\"Which tree did you say that she cut?");

    const auto mrpc = read("mrpc");
    REQUIRE(mrpc.size() == 2);
    CHECK(mrpc[0].is_pair);
    CHECK(mrpc[0].a == "\"The wall faces south,\" the owner said.");
    CHECK(mrpc[1].b == "The café beside the wall opened in May.");
    CHECK(mrpc[1].label == "0");

    const auto stsb = read("stsb");
    REQUIRE(stsb.size() == 3);
    CHECK(stsb[0].score == 5.0);
    CHECK(stsb[1].score == 0.0);
    CHECK(stsb[2].score == 2.75);
    CHECK(stsb[2].label == "2.75");
    CHECK(stsb[2].a == "Two girls plant \"roses.");

    const auto rte = read("rte");
    REQUIRE(rte.size() == 2);
    CHECK(rte[1].b == "The baker sold bread.");
    CHECK(rte[1].label == "not_entailment");

    const auto qnli = read("qnli");
    REQUIRE(qnli.size() == 2);
    CHECK(qnli[1].a == "Who drew the \"plan?");
    CHECK(qnli[0].label == "entailment");

    const auto qqp = read("qqp");
    REQUIRE(qqp.size() == 2);
    CHECK(qqp[0].b == "\"What does \"\"to prune an espalier\"\" involve?\"");  // as it stands in the file
    CHECK(qqp[1].b.empty());
    CHECK(qqp[1].is_pair);

    const auto mnli = read("mnli");
    REQUIRE(mnli.size() == 3);
    CHECK(mnli[1].a == "The vine climbs. ");
    CHECK(mnli[2].b == "No plant moves at all.");
    CHECK(mnli[2].label == "contradiction");
    CHECK(match_label(mnli[2].label, task_named("mnli").labels) == 2);

    const auto wnli = read("wnli");
    REQUIRE(wnli.size() == 2);
    CHECK(wnli[0].label == "1");
    CHECK(wnli[1].b == "The pot was heavy.");
}

TEST_CASE("CR LF, a byte-order mark and a last line without an end read alike") {
    for (const Task& task : tasks()) {
        CAPTURE(string(task.name));
        const string path = kData + string(task.name) + ".tsv";
        std::ifstream file(path, std::ios::binary);
        string windows = "\xEF\xBB\xBF";
        for (string line; std::getline(file, line);)
            windows += line + "\r\n";
        windows.resize(windows.size() - 2);
        const TemporaryFile copy(windows);
        const auto expected = read_examples(task, path), got = read_examples(task, copy.path());
        REQUIRE(got.size() == expected.size());
        for (std::size_t i = 0; i < got.size(); ++i) {
            CHECK(got[i].a == expected[i].a);
            CHECK(got[i].b == expected[i].b);
            CHECK(got[i].label == expected[i].label);
            CHECK(got[i].line == expected[i].line);
        }
    }
}

TEST_CASE("columns are found by name, in any order") {
    const TemporaryFile file("label\textra\tsentence2\tsentence1\nentailment\tx\ttwo\tone\n");
    const auto examples = read_examples(task_named("rte"), file.path());
    REQUIRE(examples.size() == 1);
    CHECK(examples[0].a == "one");
    CHECK(examples[0].b == "two");
    CHECK(examples[0].label == "entailment");
}

TEST_CASE("a bad file is named with line, column, expectation and finding") {
    CHECK(complaint("sst2", "") == "1: expected a header row with column 'label', got an empty file");
    CHECK(complaint("sst2", "\n") == "1: expected a header row with column 'label', got an empty line");
    CHECK(complaint("sst2", "sentence\tlabel\n") == "2: expected at least one row, got the end of the file");
    CHECK(complaint("cola", "") == "1: expected at least one row, got the end of the file");
    CHECK(complaint("rte", "index\tsentence1\tlabel\n0\ta\t1\n") ==
          "1: expected a column 'sentence2' in the header of a rte file, got index, sentence1, label");
    CHECK(complaint("rte", "sentence1\tsentence2\tlabel\tlabel\n") ==
          "1: expected one column 'label', got two");
    CHECK(complaint("sst2", "sentence\tlabel\nfine\t1\nshort\n") ==
          "3: expected 2 columns, got 1 column: no column 'label'");
    CHECK(complaint("sst2", "sentence\tlabel\none\ttab too\t1\n") ==
          "2: expected 2 columns, got 3 columns: after column 'label' comes '1'");
    CHECK(complaint("cola", "s\t1\t\tFine.\ns\t1\tNo star.\n") ==
          "2: expected 4 columns, got 3 columns: no column 'sentence'");
    CHECK(complaint("sst2", "sentence\tlabel\nfine\t1\n\nfine\t1\n") ==
          "3: expected 2 columns, got an empty line");
    CHECK(complaint("sst2", "sentence\tlabel\nfine\t\n") ==
          "2: expected a label in column 'label', got an empty field");
    CHECK(complaint("stsb", "sentence1\tsentence2\tscore\na\tb\t4.x\n") ==
          "2: expected a number in column 'score', got '4.x'");
    CHECK(complaint("sst2", string("sentence\tlabel\nzero\0\t1\n", 23)) ==
          "2: expected UTF-8 text, got a zero byte");
}

TEST_CASE("an error stays one short line whatever the file holds") {
    const string longest(100000, 'x');
    const string message = complaint("sst2", longest + "\xC3\xA9\n");
    CHECK(message.find("'sentence'") != string::npos);
    CHECK(message.size() < 479);
    // Three-byte characters: 60 bytes are 20 of them, the cut may not fall within one.
    string umbrellas = "a";
    for (int i = 0; i < 100; ++i)
        umbrellas += "☂";
    const string cut = complaint("stsb", "sentence1\tsentence2\tscore\na\tb\t" + umbrellas + "\n");
    CHECK(cut == "2: expected a number in column 'score', got '" + umbrellas.substr(0, 58) + "...'");
}

TEST_CASE("a file that cannot be read is an io error") {
    const string missing = kData + "no_such_file.tsv";
    CHECK(error_of([&] { TsvReader(task_named("sst2"), missing); }, Status::io) ==
          missing + ": cannot open: No such file or directory");
    CHECK(error_of([] { read_examples(task_named("cola"), kData); }, Status::io) ==
          kData + ": cannot read after line 0: Is a directory");
}

TEST_CASE("where() names the row for the caller's own messages") {
    const string path = kData + "rte.tsv";
    TsvReader reader(task_named("rte"), path);
    Example example;
    REQUIRE(reader.next(example));
    CHECK(reader.where() == path + ":2");
    REQUIRE(reader.next(example));
    CHECK_FALSE(reader.next(example));
    CHECK_FALSE(reader.next(example));
}

TEST_CASE("the progress line") {
    CHECK(render_progress("sst2", 436, 872, 4.0, 79) ==
          "sst2 [###############---------------]  50% 436/872 109/s ETA 0:04");
    CHECK(render_progress("sst2", 0, 872, 0.0, 79) ==
          "sst2 [------------------------------]   0% 0/872 0.00/s");
    CHECK(render_progress("sst2", 900, 872, 4.0, 79) ==
          "sst2 [##############################] 100% 872/872 218/s ETA 0:00");
    CHECK(render_progress("text", 3000000, 0, 120.0, 79) == "text 3000000 25.0k/s 2:00");
    CHECK(render_progress("slow", 1, 20000, 2.0, 79).ends_with("0.50/s ETA 11:06:38"));
    CHECK(render_progress("sst2", 436, 872, 4.0, 50) == "sst2 [#######--------]  50% 436/872 109/s ETA 0:04");
    CHECK(render_progress("sst2", 436, 872, 4.0, 40) == "sst2  50% 436/872 109/s ETA 0:04");
    CHECK(render_progress("sst2", 436, 872, 4.0, 10) == "sst2  50% ");
    CHECK(render_progress("sst2", 436, 872, 4.0, 0).empty());
}
