// Any sequence of calls of the C API, with valid handles and memory and otherwise any values: each gives a
// status that fits its message, none is an internal error, results are the same when asked for again, and at
// the end all memory has come back. Memory runs out where the input says so.
#include <fuzzer/FuzzedDataProvider.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "espalier/espalier.h"
#include "tests/api/models.h"
#include "tests/fuzz/fuzz.h"

namespace {

using espalier::fuzz::require;

constexpr size_t most_bytes = 16u << 20;  // of one context

// The caller's memory: the allocation that `fail_in` counts down to is refused.
struct Heap {
    size_t live = 0;
    uint32_t fail_in = 0;
};

void* take(void* user, size_t bytes, size_t alignment) {
    auto* heap = static_cast<Heap*>(user);
    if (heap->fail_in > 0 && --heap->fail_in == 0) return nullptr;
    void* pointer = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (pointer != nullptr) ++heap->live;
    return pointer;
}

void give_back(void* user, void* pointer, size_t, size_t) {
    --static_cast<Heap*>(user)->live;
    std::free(pointer);
}

class Session {
   public:
    Session(const uint8_t* data, size_t size) : input_(data, size) {}

    void run() {
        for (int calls = 0; calls < 200 && input_.remaining_bytes() > 0; ++calls) {
            switch (input_.ConsumeIntegralInRange(0, 15)) {
                case 0:
                    open();
                    break;
                case 1:
                    close(pick());
                    break;
                case 2:
                    create();
                    break;
                case 3:
                    destroy();
                    break;
                case 4:
                    tokenize();
                    break;
                case 5:
                case 6:
                    batch();
                    break;
                case 7:
                    embed_text();
                    break;
                case 8:
                    classify();
                    break;
                case 9:
                    generate();
                    break;
                case 10:
                    perplexity();
                    break;
                case 11:
                    look_at_model();
                    break;
                case 12:
                    routes();
                    break;
                case 13:
                    watch();
                    break;
                case 14:
                    heap_.fail_in = input_.ConsumeIntegralInRange<uint32_t>(0, 60);
                    break;
                default:
                    cancel_ = input_.ConsumeBool() ? 1 : 0;
                    break;
            }
        }
    }
    ~Session() {
        for (Slot& slot : slots_)
            close(slot);
        require(heap_.live == 0);
    }

   private:
    struct Slot {
        espalier_model* model = nullptr;
        espalier_context* context = nullptr;
        std::vector<std::byte> arena;
        uint32_t max_tokens = 0, max_sequences = 0;
        espalier_model_info info{};
    };

    Slot& pick() { return slots_[input_.ConsumeIntegralInRange<size_t>(0, slots_.size() - 1)]; }

    // The status that a call gave, with the error it filled.
    espalier_status checked(espalier_status status) {
        require(status >= ESPALIER_OK && status < ESPALIER_INTERNAL && error_.status == status);
        require(status == ESPALIER_OK ? error_.message[0] == 0 : espalier::fuzz::is_one_line(error_.message));
        return status;
    }
    // One of these names, null, or any text.
    template <size_t n>
    const char* name(const std::array<const char*, n>& names) {
        const size_t index = input_.ConsumeIntegralInRange<size_t>(0, 4 * n);
        if (index < n) return names[index];
        if (index != n) return nullptr;
        text_ = input_.ConsumeRandomLengthString(20);
        return text_.c_str();
    }
    // Now and then that of another version, or none; never in the middle of a field.
    size_t struct_size(size_t size) {
        const size_t others[] = {0, sizeof(size_t) - 1, sizeof(size_t), size + 8};
        const auto choice = input_.ConsumeIntegralInRange<size_t>(0, 31);
        return choice < std::size(others) ? others[choice] : size;
    }

    void open() {
        Slot& slot = pick();
        close(slot);
        constexpr std::array makers{tiny_model_bytes, bare_model_bytes, decoder_model_bytes};
        size_t bytes = 0;
        const void* data = input_.PickValueInArray(makers)(&bytes);
        espalier_model_options options;
        espalier_model_options_init(&options);
        options.isa = name(std::array{"scalar", "avx2", "avx512", "neon"});
        std::string isa = options.isa != nullptr ? options.isa : "";
        if (options.isa != nullptr) options.isa = isa.c_str();
        options.precision = name(std::array{"f32", "bf16", "int8"});
        options.verify = input_.ConsumeBool() ? 1 : 0;
        options.huge_pages = input_.ConsumeIntegralInRange(0, 7) == 0 ? 1 : 0;
        if (input_.ConsumeBool()) options.allocator = {take, give_back, &heap_};
        options.struct_size = struct_size(sizeof(options));
        if (input_.ConsumeIntegralInRange(0, 15) == 0)
            bytes = input_.ConsumeIntegralInRange<size_t>(0, bytes);
        const auto status = checked(espalier_model_from_memory(data, bytes, &options, &slot.model, &error_));
        require((status == ESPALIER_OK) == (slot.model != nullptr));
        if (status != ESPALIER_OK) return;
        slot.info.struct_size = sizeof(slot.info);
        require(espalier_model_get_info(slot.model, &slot.info) == ESPALIER_OK);
    }
    void close(Slot& slot) {
        espalier_context_destroy(slot.context);
        espalier_model_close(slot.model);
        slot = {};
    }

    void create() {
        Slot& slot = pick();
        espalier_context_destroy(slot.context);
        slot.context = nullptr;
        espalier_context_options options;
        espalier_context_options_init(&options);
        options.threads = input_.ConsumeIntegralInRange(-1, 4);
        options.max_tokens = input_.ConsumeBool() ? input_.ConsumeIntegralInRange(0u, 80u)
                                                  : input_.ConsumeIntegral<uint32_t>();
        options.max_sequences = input_.ConsumeIntegralInRange(0u, 9u);
        options.cancel = input_.ConsumeBool() ? &cancel_ : nullptr;
        size_t bytes = 0;
        if (checked(espalier_context_bytes(slot.model, &options, &bytes, &error_)) != ESPALIER_OK ||
            bytes > most_bytes)
            return;
        if (input_.ConsumeBool()) {
            slot.arena.assign(bytes + 64, std::byte{0xab});
            auto place = reinterpret_cast<uintptr_t>(slot.arena.data());
            place = (place + 63) / 64 * 64 + (input_.ConsumeIntegralInRange(0, 15) == 0 ? 4 : 0);
            options.arena = reinterpret_cast<void*>(place);
            options.arena_bytes = input_.ConsumeIntegralInRange(0, 15) == 0 ? bytes / 2 : bytes;
        }
        options.struct_size = struct_size(sizeof(options));
        const auto status = checked(espalier_context_create(slot.model, &options, &slot.context, &error_));
        require((status == ESPALIER_OK) == (slot.context != nullptr));
    }
    void destroy() {
        Slot& slot = pick();
        espalier_context_destroy(slot.context);
        slot.context = nullptr;
    }

    // Its strings live until the next.
    espalier_text text() {
        first_ = input_.ConsumeRandomLengthString(64);
        espalier_text text{first_.data(), first_.size(), nullptr, 0};
        if (input_.ConsumeIntegralInRange(0, 3) == 0) {
            second_ = input_.ConsumeRandomLengthString(64);
            text.pair = second_.data();
            text.pair_bytes = second_.size();
        }
        if (input_.ConsumeIntegralInRange(0, 31) == 0) text.text = nullptr;
        return text;
    }

    void tokenize() {
        Slot& slot = pick();
        const espalier_text given = text();
        const auto capacity = input_.ConsumeIntegralInRange<size_t>(0, 40);
        std::vector<int32_t> ids(capacity);
        std::vector<uint8_t> types(capacity);
        size_t count = 0;
        int truncated = 0;
        const auto status = checked(espalier_tokenize(
            slot.context, &given, input_.ConsumeIntegralInRange(0u, 3u),
            capacity > 0 ? ids.data() : first_id_, input_.ConsumeBool() ? types.data() : nullptr, capacity,
            &count, &truncated, &error_));
        if (status != ESPALIER_OK) return;
        require(count <= capacity);
        for (size_t i = 0; i < count; ++i)
            require(ids[i] >= 0 && static_cast<uint32_t>(ids[i]) < slot.info.vocabulary);
    }

    void batch() {
        Slot& slot = pick();
        const auto sequences = input_.ConsumeIntegralInRange<uint32_t>(0, 6);
        std::vector<uint32_t> offsets{0};
        for (uint32_t s = 0; s < sequences; ++s)
            offsets.push_back(offsets.back() + input_.ConsumeIntegralInRange(1u, 17u));
        const size_t tokens = offsets.back();  // what lies between may be spoilt, not the memory's end
        if (sequences > 1 && input_.ConsumeIntegralInRange(0, 7) == 0)
            offsets[input_.ConsumeIntegralInRange<uint32_t>(0, sequences - 1)] =
                input_.ConsumeIntegral<uint32_t>();
        std::vector<int32_t> ids(tokens);
        for (int32_t& id : ids)
            id = input_.ConsumeIntegralInRange(0, 11);
        std::vector<uint8_t> types(tokens);
        if (tokens > 0 && input_.ConsumeIntegralInRange(0, 7) == 0)
            ids[input_.ConsumeIntegralInRange<size_t>(0, tokens - 1)] = input_.ConsumeIntegral<int32_t>();
        if (tokens > 0 && input_.ConsumeBool())
            types[input_.ConsumeIntegralInRange<size_t>(0, tokens - 1)] =
                input_.ConsumeIntegralInRange<uint8_t>(0, 3);
        const espalier_batch given{ids.data(), input_.ConsumeBool() ? types.data() : nullptr, offsets.data(),
                                   sequences};
        const int kind = input_.ConsumeIntegralInRange(0, 2);
        const auto head = input_.ConsumeIntegralInRange<uint32_t>(0, 2);
        size_t floats = kind == 0 ? tokens * slot.info.hidden : sequences * size_t{slot.info.hidden};
        if (kind == 2) floats = sequences * size_t{outputs(slot, head)};
        std::vector<float> once(floats + 1), again(floats + 1);
        const auto call = [&](std::vector<float>& out) {
            return checked(kind == 0   ? espalier_encode(slot.context, &given, out.data(), &error_)
                           : kind == 1 ? espalier_embed(slot.context, &given, out.data(), &error_)
                                       : espalier_score(slot.context, &given, head, out.data(), &error_));
        };
        once[floats] = again[floats] = 0;
        if (call(once) == ESPALIER_OK && call(again) == ESPALIER_OK)
            require(std::memcmp(once.data(), again.data(), once.size() * sizeof(float)) == 0);
        else
            require(error_.status != ESPALIER_OK);
    }
    static uint32_t outputs(const Slot& slot, uint32_t head) {
        espalier_head_info info{};
        info.struct_size = sizeof(info);
        return espalier_model_get_head(slot.model, head, &info) == ESPALIER_OK ? info.outputs : 0;
    }

    void embed_text() {
        Slot& slot = pick();
        const espalier_text given = text();
        std::vector<float> vector(slot.info.hidden + 1);
        int truncated = 0;
        checked(espalier_embed_text(slot.context, &given, vector.data(), &truncated, &error_));
        require(vector.back() == 0);
    }
    void classify() {
        Slot& slot = pick();
        const espalier_text given = text();
        const auto head = input_.ConsumeIntegralInRange<uint32_t>(0, 2);
        std::vector<float> logits(outputs(slot, head) + 1);
        espalier_classification result{};
        const auto status = checked(espalier_classify_text(
            slot.context, &given, head, &result, input_.ConsumeBool() ? logits.data() : nullptr, &error_));
        require(logits.back() == 0);
        if (status == ESPALIER_OK)
            require(result.label < outputs(slot, head) && result.probability > 0 && result.probability <= 1);
    }
    void generate() {
        Slot& slot = pick();
        const espalier_text given = text();
        espalier_generate_options options;
        espalier_generate_options_init(&options);
        options.max_tokens = input_.ConsumeIntegralInRange(1u, 9u);
        options.temperature = input_.ConsumeFloatingPoint<float>();
        options.top_k = input_.ConsumeIntegral<uint8_t>();
        options.top_p = input_.ConsumeBool() ? 1 : input_.ConsumeFloatingPoint<float>();
        options.seed = input_.ConsumeIntegral<uint8_t>();
        options.struct_size = struct_size(sizeof(options));
        uint32_t left = input_.ConsumeIntegralInRange(1u, 12u);
        const auto stop = [](void* user, int32_t, const char*, size_t bytes) {
            require(bytes <= 1024);
            return --*static_cast<uint32_t*>(user) == 0 ? 1 : 0;
        };
        espalier_generation result{};
        result.struct_size = struct_size(sizeof(result));
        checked(espalier_generate(slot.context, &given, &options, stop, &left, &result, &error_));
    }
    void perplexity() {
        Slot& slot = pick();
        const std::string given = input_.ConsumeRandomLengthString(100);
        espalier_perplexity_result result{};
        result.struct_size = struct_size(sizeof(result));
        checked(espalier_perplexity(slot.context, given.data(), given.size(), &result, &error_));
    }

    void look_at_model() {
        Slot& slot = pick();
        espalier_model_info info{};
        info.struct_size = struct_size(sizeof(info));
        const auto status = espalier_model_get_info(slot.model, &info);
        require(status == ESPALIER_OK || status == ESPALIER_INVALID_ARGUMENT);
        const auto head = input_.ConsumeIntegralInRange<uint32_t>(0, 3),
                   label = input_.ConsumeIntegralInRange<uint32_t>(0, 3);
        const char* name = espalier_model_label(slot.model, head, label);
        require(name == nullptr || std::strlen(name) < 100);
        require(espalier_status_name(static_cast<espalier_status>(head * 5)) != nullptr);
    }
    void routes() {
        Slot& slot = pick();
        espalier_routes routes{};
        routes.struct_size = struct_size(sizeof(routes));
        const auto status = espalier_get_routes(slot.context, input_.ConsumeIntegralInRange(0u, 3u), &routes);
        require(status == ESPALIER_OK || status == ESPALIER_INVALID_ARGUMENT);
        if (status != ESPALIER_OK || routes.struct_size != sizeof(routes)) return;
        for (size_t i = 0; i < routes.tokens * routes.trees; ++i)
            require(routes.leaf[i] < routes.leaves && routes.margin[i] >= 0);
    }
    void watch() {
        const auto look = [](void* user, uint32_t, const float* hidden, size_t tokens) {
            *static_cast<float*>(user) += tokens > 0 ? hidden[0] : 0;
        };
        espalier_on_layer(pick().context, input_.ConsumeBool() ? look : nullptr, &seen_);
    }

    FuzzedDataProvider input_;
    Heap heap_;
    std::array<Slot, 3> slots_;
    espalier_error error_{};
    int cancel_ = 0;
    int32_t first_id_[1] = {};
    float seen_ = 0;
    std::string text_, first_, second_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Session(data, size).run();
    return 0;
}
