// Several heads on one encoder: a tree checkpoint's `heads` in config.json, from `convert` to the commands
// that use them.
#include <doctest/doctest.h>

#include <cmath>

#include "tests/command/checkpoint.h"
#include "tests/command/process.h"

namespace espalier::test {
namespace {

using Edit = std::function<void(Checkpoint&)>;

const std::vector<std::string>& head_tensors() {
    static const std::vector<std::string> names{"dense.weight", "dense.bias", "out.weight", "out.bias"};
    return names;
}

Json classifier(const std::string& name, const std::vector<std::string>& labels) {
    return {{"name", name}, {"kind", "classifier"}, {"activation", "tanh"}, {"labels", labels}};
}
Json regression(const std::string& name) {
    return {{"name", name}, {"kind", "regression"}};
}

// The tiny trees with these heads and random tensors for each.
Checkpoint with_heads(const std::vector<Json>& heads) {
    Checkpoint c = tree_checkpoint();
    c.config.erase("head");
    for (const std::string& tensor : head_tensors())
        c.tensors.erase("classifier." + tensor);
    for (const Json& head : heads) {
        const std::string name = "heads." + head.at("name").get<std::string>() + ".";
        c.add_linear(name + "dense", tiny_bert::hidden, tiny_bert::hidden);
        c.add_linear(name + "out", head.contains("labels") ? head.at("labels").size() : 1, tiny_bert::hidden);
    }
    if (!heads.empty()) c.config["heads"] = heads;
    return c;
}

Checkpoint two_heads() {
    return with_heads(
        {classifier("sst2", {"negative", "positive"}), classifier("mrpc", {"not_equivalent", "equivalent"})});
}

// The same checkpoint with its head `index` alone, in the form for one head.
Checkpoint alone(Checkpoint c, size_t index) {
    Json head = c.config.at("heads")[index];
    const std::string from = "heads." + head.at("name").get<std::string>() + ".";
    std::map<std::string, CheckpointTensor> kept;
    for (const auto& [name, tensor] : c.tensors) {
        if (!name.starts_with("heads.")) kept[name] = tensor;
    }
    for (const std::string& tensor : head_tensors())
        kept["classifier." + tensor] = c.tensors.at(from + tensor);
    head.erase("name");
    c.tensors = kept;
    c.config.erase("heads");
    c.config["head"] = head;
    return c;
}

// A folder where checkpoints become model files of the same name.
struct Workshop {
    TemporaryFolder folder;

    Workshop() { bert_checkpoint().write(folder.path("bert")); }
    Outcome convert(const Checkpoint& checkpoint, const std::string& name,
                    const std::vector<std::string>& more = {}) const {
        checkpoint.write(folder.path(name));
        std::vector<std::string> arguments{"convert", folder.path(name),  "-o", folder.path(name + ".esp"),
                                           "--base",  folder.path("bert")};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return espalier(arguments);
    }
    std::string make(const Checkpoint& checkpoint, const std::string& name,
                     const std::vector<std::string>& more = {}) const {
        check_good(convert(checkpoint, name, more));
        return folder.path(name + ".esp");
    }
};

// One folder for the models that several cases use.
struct Models : Workshop {
    std::string two = make(two_heads(), "two"), plain = make(with_heads({}), "plain");
};
const Models& models() {
    static const Models all;
    return all;
}

void refuses(const Edit& edit, const std::vector<std::string>& words) {
    Checkpoint c = two_heads();
    edit(c);
    const Workshop shop;
    check_refused(shop.convert(c, "bad"), words);
}

std::vector<double> vector_of(const std::string& model, const std::string& text) {
    return Json::parse(check_good(espalier({"embed", model, text})).out).get<std::vector<double>>();
}

double length_of(const std::vector<double>& vector) {
    double squares = 0;
    for (const double value : vector)
        squares += value * value;
    return std::sqrt(squares);
}

std::vector<double> linear(const Checkpoint& c, const std::string& name, const std::vector<double>& x) {
    const auto &weight = c.tensors.at(name + ".weight").values, &bias = c.tensors.at(name + ".bias").values;
    std::vector<double> y(bias.begin(), bias.end());
    for (size_t i = 0; i < y.size(); ++i) {
        for (size_t j = 0; j < x.size(); ++j)
            y[i] += static_cast<double>(weight[i * x.size() + j]) * x[j];
    }
    return y;
}

std::string data(const std::string& task) {
    return std::string(ESPALIER_TEST_DATA "/glue/") + task + ".tsv";
}

// What glue printed, and the predictions it wrote.
struct Scores {
    Json report;
    std::string predictions;
};
Scores glue(const std::string& model, const std::string& task, const std::vector<std::string>& more = {}) {
    const TemporaryFolder folder;
    std::vector<std::string> arguments{"glue",     model,    "--task",        task,
                                       data(task), "--json", "--predictions", folder.path("tsv")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return {Json::parse(check_good(espalier(arguments)).out), read_file(folder.path("tsv"))};
}
Outcome try_glue(const std::string& model, const std::string& task,
                 const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{"glue", model, "--task", task, data(task)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return espalier(arguments);
}

const std::vector<std::string> texts{"the tree", "a leaf . the leaf", "a b\tthe trees", ""};

}  // namespace

TEST_CASE("each of several heads gives what it gives alone, to the last bit") {
    const Workshop shop;
    const Checkpoint three = with_heads({classifier("sst2", {"negative", "positive"}), regression("stsb"),
                                         classifier("mnli", {"entailment", "neutral", "contradiction"})});
    for (const std::string precision : {"f32", "f16", "bf16", "int8"}) {
        CAPTURE(precision);
        const std::string together = shop.make(three, "together-" + precision, {"--precision", precision});
        check_good(espalier({"verify", together}));
        for (size_t i = 0; i < 3; ++i) {
            const auto name = three.config.at("heads")[i].at("name").get<std::string>();
            CAPTURE(name);
            const std::string single =
                shop.make(alone(three, i), name + precision, {"--precision", precision});
            std::vector<std::string> here{"classify", together, "--json", "--head", name},
                there{"classify", single, "--json"};
            here.insert(here.end(), texts.begin(), texts.end());
            there.insert(there.end(), texts.begin(), texts.end());
            const Outcome outcome = check_good(espalier(here));
            CHECK(outcome.lines().size() == texts.size());
            CHECK(outcome.out == check_good(espalier(there)).out);
        }
    }
}

TEST_CASE("a head's logits and labels from the embedding, by hand") {
    const Checkpoint c = two_heads();
    for (const std::string& text : texts) {
        const auto pooled = vector_of(models().two, text);  // not normalised: there are heads
        for (const Json& head : c.config.at("heads")) {
            const auto name = head.at("name").get<std::string>();
            auto inner = linear(c, "heads." + name + ".dense", pooled);
            for (double& value : inner)
                value = std::tanh(value);
            const auto expected = linear(c, "heads." + name + ".out", inner);
            const Json j = Json::parse(
                check_good(espalier({"classify", models().two, "--json", "--head", name, text})).out);
            const auto logits = j.at("logits").get<std::vector<double>>();
            REQUIRE(logits.size() == 2);
            for (size_t i = 0; i < 2; ++i)
                CHECK(logits[i] == doctest::Approx(expected[i]).epsilon(1e-5));
            CHECK(j.at("label") == head.at("labels")[expected[1] > expected[0] ? 1 : 0]);
        }
    }
}

TEST_CASE("normalise: as config.json says, else where there is no head") {
    const Workshop shop;
    const auto length = [&](Checkpoint c, const std::string& name, const Json& flag) {
        if (!flag.is_null()) c.config["normalise"] = flag;
        const std::string model = shop.make(c, name);
        const double given = length_of(vector_of(model, "the tree"));
        const bool unit = std::abs(given - 1) < 1e-5;
        const Json j = Json::parse(check_good(espalier({"inspect", model, "--json"})).out);
        CHECK(j.at("normalise_output") == unit);
        CHECK(holds(check_good(espalier({"inspect", model})).out,
                    unit ? "embedding  mean pooling, of length 1\n" : "mean pooling, not normalised\n"));
        return unit;
    };
    CHECK(!length(two_heads(), "heads", nullptr));
    CHECK(length(two_heads(), "heads-yes", true));
    CHECK(!length(two_heads(), "heads-no", false));
    CHECK(length(with_heads({}), "none", nullptr));
    CHECK(!length(with_heads({}), "none-no", false));
    CHECK(length(tree_checkpoint(), "one-yes", true));
    Checkpoint unit = two_heads();
    unit.config["normalise"] = true;
    CHECK(vector_of(shop.make(unit, "unit"), "a leaf") == vector_of(models().plain, "a leaf"));
    refuses([](Checkpoint& c) { c.config["normalise"] = 1; },
            {"config.json: normalise", "true or false", "1"});
}

TEST_CASE("heads that are refused") {
    const auto entry = [](size_t index, const char* key, const Json& value) {
        return [=](Checkpoint& c) { c.config["heads"][index][key] = value; };
    };
    refuses([](Checkpoint& c) { c.config["head"] = c.config["heads"][0]; },
            {"config.json: head, heads:", "found both"});
    refuses(entry(1, "name", "sst2"), {"config.json: heads[1]: name:", "no other head", "sst2"});
    refuses(entry(1, "name", ""), {"config.json: heads[1]: name:", "found none"});
    refuses(entry(0, "name", nullptr), {"heads[0]: name: expected a string, found nothing"});
    refuses(entry(0, "name", 7), {"heads[0]: name: expected a string, found 7"});
    refuses(entry(0, "kind", "oracle"), {"heads[0]: kind:", "classifier or regression", "oracle"});
    refuses(entry(1, "activation", "relu"), {"heads[1]: activation: expected tanh, found relu"});
    refuses(entry(1, "labels", nullptr), {"heads[1]: labels: expected an array, found nothing"});
    refuses(entry(1, "labels", Json::array()), {"heads[1]: labels: expected 1 to", "found 0"});
    refuses(entry(1, "labels", {"a", 2}), {"heads[1]: labels: expected strings"});
    refuses(entry(1, "labels", {"a", "b", "c"}), {"heads.mrpc.out.weight", "[3, 16]", "[2, 16]"});
    refuses([](Checkpoint& c) { c.config["heads"] = 3; }, {"config.json: heads: expected an array, found 3"});
    refuses([](Checkpoint& c) { c.config["heads"] = {3}; }, {"heads[0]: name", "found nothing"});
    refuses([](Checkpoint& c) { c.config["heads"] = Json::array(); }, {"heads: expected 1 to 256, found 0"});
    refuses(
        [](Checkpoint& c) {
            for (size_t i = 0; i < 257; ++i)
                c.config["heads"][i] = regression("head " + std::to_string(i));
        },
        {"config.json: heads: expected 1 to 256, found 257"});
    for (const std::string& tensor : head_tensors()) {
        const std::string name = "heads.mrpc." + tensor;
        refuses([&](Checkpoint& c) { c.tensors.erase(name); }, {name, "missing"});
        refuses([&](Checkpoint& c) { c.add(name, {3}); }, {name, "expected shape", "[3]"});
        refuses([&](Checkpoint& c) { c.add("classifier." + tensor, {3}); },
                {"classifier." + tensor, "uses it"});
    }
    refuses([](Checkpoint& c) { c.config["heads"].erase(1); }, {"heads.mrpc.dense.bias", "uses it"});
    const Workshop shop;
    check_refused(shop.convert(two_heads(), "named", {"--head-name", "mood"}),
                  {"--head-name", "config.json"});
}

TEST_CASE("inspect lists all the heads") {
    const std::string out = check_good(espalier({"inspect", models().two})).out;
    CHECK(holds(out, "head       sst2: classifier negative positive\n"));
    CHECK(holds(out, "head       mrpc: classifier not_equivalent equivalent\n"));
    const Json heads = Json::parse(check_good(espalier({"inspect", models().two, "--json"})).out).at("heads");
    REQUIRE(heads.size() == 2);
    CHECK(heads[0].at("name") == "sst2");
    CHECK(heads[1].at("labels") == Json({"not_equivalent", "equivalent"}));
}

TEST_CASE("classify: a head by name, or the only one") {
    const auto lines = check_good(espalier({"classify", models().two, "--head", "mrpc", "a\tb"})).lines();
    REQUIRE(lines.size() == 1);
    CHECK(holds(lines[0], "equivalent\t"));
    check_refused(espalier({"classify", models().two, "a"}),
                  {models().two, "--head: expected one of sst2, mrpc, found none"});
    check_refused(espalier({"classify", models().two, "--head", "cola", "a"}),
                  {models().two, "--head: expected one of sst2, mrpc, found cola"});
    check_refused(espalier({"classify", models().plain, "--head", "sst2", "a"}), {"no classification head"});
    const Workshop shop;
    const std::string one = shop.make(with_heads({classifier("sst2", {"no", "yes"})}), "one");
    check_good(espalier({"classify", one, "a"}));
    check_good(espalier({"classify", one, "--head", "sst2", "a"}));
}

TEST_CASE("glue: the head called as the task") {
    const Workshop shop;
    for (size_t i = 0; i < 2; ++i) {
        const std::string task = i == 0 ? "sst2" : "mrpc";
        const Scores scores = glue(models().two, task);
        CHECK(scores.report.at("head") == task);
        CHECK(scores.predictions == glue(shop.make(alone(two_heads(), i), task), task).predictions);
        CHECK(scores.predictions == glue(models().two, task, {"--head", task}).predictions);
        CHECK(holds(check_good(try_glue(models().two, task)).out, "(head " + task + ", "));
    }
    const Scores other = glue(models().two, "cola", {"--head", "mrpc"});
    CHECK(other.report.at("head") == "mrpc");
    CHECK(other.predictions != glue(models().two, "cola", {"--head", "sst2"}).predictions);
    check_refused(try_glue(models().two, "cola"),
                  {models().two, "--head: expected one of sst2, mrpc (none is called cola), found none"});
    check_refused(try_glue(models().two, "mnli", {"--head", "mrpc"}), {"head mrpc", "3 classes for mnli"});
    check_refused(try_glue(models().two, "stsb", {"--head", "mrpc"}), {"head mrpc", "regression for stsb"});
    check_refused(try_glue(models().two, "sst2", {"--head", "cola"}), {"one of sst2, mrpc, found cola"});
    check_refused(try_glue(models().plain, "sst2"), {"no classification head"});
}

TEST_CASE("glue: STS-B by a regression, else by the cosine of embeddings") {
    const Workshop shop;
    const Scores cosine = glue(models().plain, "stsb");
    CHECK(cosine.report.at("head").is_null());
    Checkpoint unit = two_heads();
    unit.config["normalise"] = true;
    const Scores beside = glue(shop.make(unit, "unit"), "stsb");
    CHECK(beside.report.at("head").is_null());
    CHECK(beside.predictions == cosine.predictions);
    CHECK(holds(check_good(try_glue(models().two, "stsb")).out, "(cosine of embeddings, "));

    const Json sst2 = classifier("sst2", {"negative", "positive"});
    const auto head = [&](const std::vector<Json>& heads, const std::vector<std::string>& more = {}) {
        return glue(shop.make(with_heads(heads), "heads"), "stsb", more).report.at("head");
    };
    CHECK(head({sst2, regression("score")}) == "score");
    CHECK(head({sst2, regression("score"), regression("stsb")}) == "stsb");
    CHECK(head({sst2, regression("score"), regression("stsb")}, {"--head", "score"}) == "score");
    const std::string many = shop.make(with_heads({sst2, regression("x"), regression("y")}), "many");
    check_refused(try_glue(many, "stsb"), {"--head: expected one of x, y (none is called stsb), found none"});
    const std::string odd = shop.make(with_heads({classifier("stsb", {"no", "yes"})}), "odd");
    check_refused(try_glue(odd, "stsb"), {"head stsb", "expected a regression for stsb"});
}

}  // namespace espalier::test
