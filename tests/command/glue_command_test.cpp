// `espalier glue` for all nine tasks on models with a random head of the right size, and what it refuses.
#include <doctest/doctest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/command/process.h"
#include "tests/tiny_model.h"

namespace espalier::test {
namespace {

using nlohmann::json;

struct GlueTask {
    const char* name;
    std::vector<std::string_view> labels;  // empty: a score
    std::vector<const char*> metrics;
};

const std::vector<GlueTask>& glue_tasks() {
    static const std::vector<GlueTask> tasks{
        {"sst2", {"negative", "positive"}, {"accuracy"}},
        {"cola", {"unacceptable", "acceptable"}, {"matthews"}},
        {"mrpc", {"not_equivalent", "equivalent"}, {"accuracy", "f1"}},
        {"stsb", {}, {"pearson", "spearman"}},
        {"rte", {"entailment", "not_entailment"}, {"accuracy"}},
        {"qnli", {"entailment", "not_entailment"}, {"accuracy"}},
        {"qqp", {"not_duplicate", "duplicate"}, {"accuracy", "f1"}},
        {"mnli", {"entailment", "neutral", "contradiction"}, {"accuracy"}},
        {"wnli", {"not_entailment", "entailment"}, {"accuracy"}},
    };
    return tasks;
}

// Models by what their head is for: a task's name, "plain" without a head, "unnamed" with two nameless
// classes.
struct Models {
    TemporaryFolder folder;
    std::string operator[](const std::string& name) const { return folder.path(name + ".esp"); }

    Models() {
        for (const GlueTask& task : glue_tasks()) {
            ModelSpec spec = with_blocks();
            const auto kind = task.labels.empty() ? HeadKind::regression : HeadKind::classifier;
            const size_t outputs = std::max<size_t>(1, task.labels.size());
            add_head(spec, task.name, kind, static_cast<uint32_t>(outputs), task.labels);
            write(task.name, spec);
        }
        write("plain", with_blocks());
        ModelSpec unnamed = with_blocks();
        add_head(unnamed, "unnamed", HeadKind::classifier, 2, {});
        write("unnamed", unnamed);
    }

   private:
    static ModelSpec with_blocks() {
        ModelSpec spec = bare_spec();
        add_block(spec, block_flag::attention, {forest_part(PartKind::leaf_forest, 1, 2, 3)});
        return spec;
    }
    void write(const std::string& name, const ModelSpec& spec) const {
        write_model((*this)[name].c_str(), spec, random_tensors(spec, only(TensorType::f32)));
    }
};

const Models& models() {
    static const Models all;
    return all;
}

std::string data(const std::string& task) {
    return std::string(ESPALIER_TEST_DATA "/glue/") + task + ".tsv";
}

Outcome glue(const std::string& model, const std::string& task, const std::string& tsv,
             const std::vector<std::string>& more = {"--json"}) {
    std::vector<std::string> arguments{"glue", model, "--task", task, tsv};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return espalier(arguments);
}

// Metrics are fractions; a correlation or F1 that is 0/0 is null.
void check_fraction(const json& value) {
    CAPTURE(value.dump());
    if (value.is_null()) return;
    CHECK(value.get<double>() >= -1);
    CHECK(value.get<double>() <= 1);
}

}  // namespace

TEST_CASE("all nine tasks") {
    for (const GlueTask& task : glue_tasks()) {
        CAPTURE(task.name);
        const Outcome outcome = check_good(glue(models()[task.name], task.name, data(task.name)));
        REQUIRE(outcome.lines().size() == 1);
        const json j = json::parse(outcome.out);
        CHECK(j.at("task") == task.name);
        CHECK(j.at("n") > 1);
        CHECK(j.at("sentences_per_second") > 0);
        for (const char* metric : task.metrics)
            check_fraction(j.at(metric));
        CHECK(check_good(glue(models()[task.name], task.name, data(task.name), {})).lines().size() == 1);
    }
}

TEST_CASE("the order of batches, their size and the threads change nothing") {
    const auto numbers = [](const std::vector<std::string>& more) {
        std::vector<std::string> options{"--json"};
        options.insert(options.end(), more.begin(), more.end());
        json j = json::parse(check_good(glue(models()["sst2"], "sst2", data("sst2"), options)).out);
        return j.at("accuracy").get<double>();
    };
    const double first = numbers({});
    CHECK(numbers({"--order", "file"}) == first);
    CHECK(numbers({"--batch", "1"}) == first);
    CHECK(numbers({"--batch", "1000", "--threads", "2"}) == first);
}

TEST_CASE("STS-B: by a regression head, by the cosine without one") {
    for (const char* model : {"plain", "sst2", "stsb"}) {
        CAPTURE(model);
        const json j = json::parse(check_good(glue(models()[model], "stsb", data("stsb"))).out);
        check_fraction(j.at("pearson"));
        check_fraction(j.at("spearman"));
        CHECK(j.at("head") == (model == std::string("stsb") ? json("stsb") : json()));
    }
    check_refused(glue(models()["sst2"], "stsb", data("stsb"), {"--head", "sst2"}),
                  {models()["sst2"], "sst2", "regression"});
}

TEST_CASE("head and task that do not fit") {
    for (const GlueTask& task : glue_tasks()) {
        if (task.labels.empty()) continue;
        const std::string other = task.labels.size() == 3 ? "sst2" : "mnli";
        check_refused(glue(models()[other], task.name, data(task.name)),
                      {models()[other], other, std::to_string(task.labels.size()), task.name});
        check_refused(glue(models()["stsb"], task.name, data(task.name)), {"stsb", "regression"});
        check_refused(glue(models()["plain"], task.name, data(task.name)), {"no classification head"});
    }
    check_refused(glue(models()["sst2"], "sst2", data("sst2"), {"--head", "other"}), {"sst2", "other"});
    check_good(glue(models()["unnamed"], "rte", data("rte")));  // the task's own names
}

TEST_CASE("files of another task, or with missing columns") {
    check_refused(glue(models()["mrpc"], "mrpc", data("sst2")), {data("sst2"), "#1 String"});
    check_refused(glue(models()["sst2"], "sst2", data("mrpc")), {data("mrpc"), "sentence"});
    check_refused(glue(models()["qnli"], "qnli", data("rte")), {data("rte"), "question"});
    check_refused(glue(models()["cola"], "cola", data("sst2")), {data("sst2"), "column"});

    const TemporaryFolder folder;
    const auto refused = [&](const std::string& text, const std::vector<std::string>& words) {
        const std::string path = folder.path("data.tsv");
        write_file(path, text);
        check_refused(glue(models()["sst2"], "sst2", path), words);
    };
    refused("sentence\ngood\n", {"data.tsv:1", "label"});
    refused("sentence\tlabel\ngood\n", {"data.tsv:2", "label"});
    refused("sentence\tlabel\ngood\t1\tmore\n", {"data.tsv:2", "more"});
    refused("sentence\tlabel\ngood\t7\n", {"data.tsv:2", "negative", "7"});
    refused("sentence\tlabel\n\xff\t1\n", {"data.tsv:2", "UTF-8"});
    refused("sentence\tlabel\n", {"data.tsv:2", "row"});
    refused("", {"data.tsv:1", "header"});
    check_refused(glue(models()["sst2"], "sst2", folder.path("missing.tsv")),
                  {"missing.tsv", "No such file"});
    check_refused(glue(models()["sst2"], "sst2", folder.path("")), {"cannot read"});
}

TEST_CASE("a byte-order mark, CR LF, and labels by name") {
    const TemporaryFolder folder;
    const std::string path = folder.path("data.tsv");
    write_file(path, std::string("\xef\xbb\xbfsentence\tlabel\r\nthe tree\tpositive\r\na leaf\t0\r\n"));
    const json j = json::parse(check_good(glue(models()["sst2"], "sst2", path)).out);
    CHECK(j.at("n") == 2);
}

TEST_CASE("predictions") {
    const TemporaryFolder folder;
    const std::string path = folder.path("predictions.tsv");
    check_good(glue(models()["sst2"], "sst2", data("sst2"), {"--predictions", path}));
    CHECK(read_file(path).ends_with("\n"));
    check_refused(glue(models()["sst2"], "sst2", data("sst2"), {"--predictions", folder.path("no/such")}),
                  {"no/such"});
}

}  // namespace espalier::test
