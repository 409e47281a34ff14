#include "kernels/cuda/dense.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "kernels/cuda/rows.h"

namespace espalier::cuda {
namespace {

// The library's functions, by its own declarations.
struct Library {
    decltype(&::cublasLtCreate) create;
    decltype(&::cublasLtDestroy) destroy;
    decltype(&::cublasLtMatmulDescCreate) make_product;
    decltype(&::cublasLtMatmulDescDestroy) drop_product;
    decltype(&::cublasLtMatmulDescSetAttribute) set_product;
    decltype(&::cublasLtMatrixLayoutCreate) make_layout;
    decltype(&::cublasLtMatrixLayoutDestroy) drop_layout;
    decltype(&::cublasLtMatmulPreferenceCreate) make_preference;
    decltype(&::cublasLtMatmulPreferenceDestroy) drop_preference;
    decltype(&::cublasLtMatmulPreferenceSetAttribute) set_preference;
    decltype(&::cublasLtMatmulAlgoGetHeuristic) propose;
    decltype(&::cublasLtMatmul) multiply;
};

constexpr const char* library_names[] = {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};

Library open_library() {
    void* handle = nullptr;
    for (const char* name : library_names) {
        if (handle == nullptr) handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    }
    if (handle == nullptr)
        throw Error(Status::unsupported, "cuda: libcublasLt.so.13 is not to be had: %s", dlerror());
    Library library;
    const auto find = [&](auto& function, const char* name) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
        if (function == nullptr) throw Error(Status::unsupported, "cuda: libcublasLt has no %s", name);
    };
    find(library.create, "cublasLtCreate");
    find(library.destroy, "cublasLtDestroy");
    find(library.make_product, "cublasLtMatmulDescCreate");
    find(library.drop_product, "cublasLtMatmulDescDestroy");
    find(library.set_product, "cublasLtMatmulDescSetAttribute");
    find(library.make_layout, "cublasLtMatrixLayoutCreate");
    find(library.drop_layout, "cublasLtMatrixLayoutDestroy");
    find(library.make_preference, "cublasLtMatmulPreferenceCreate");
    find(library.drop_preference, "cublasLtMatmulPreferenceDestroy");
    find(library.set_preference, "cublasLtMatmulPreferenceSetAttribute");
    find(library.propose, "cublasLtMatmulAlgoGetHeuristic");
    find(library.multiply, "cublasLtMatmul");
    return library;
}

const Library& library() {
    static const Library opened = open_library();
    return opened;
}

void check_blas(cublasStatus_t status, const char* what) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    const Status ours = status == CUBLAS_STATUS_ALLOC_FAILED    ? Status::out_of_memory
                        : status == CUBLAS_STATUS_NOT_SUPPORTED ? Status::unsupported
                                                                : Status::internal;
    throw Error(ours, "cuda: cuBLASLt: %s: status %d", what, static_cast<int>(status));
}

constexpr cudaDataType_t data_type(TensorType type) {
    return type == TensorType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

// The activations that the library computes as we do; its GELU is the one by tanh.
bool is_fused(Activation activation) {
    return activation == Activation::none || activation == Activation::relu ||
           activation == Activation::gelu_tanh;
}

cublasLtEpilogue_t epilogue(Activation activation, bool bias) {
    switch (activation) {
        case Activation::relu:
            return bias ? CUBLASLT_EPILOGUE_RELU_BIAS : CUBLASLT_EPILOGUE_RELU;
        case Activation::gelu_tanh:
            return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
        default:
            return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
    }
}

// A product of one shape and number of rows. The library's matrices are column-major: there y^T = W x^T.
struct Plan {
    cublasLtMatmulDesc_t product = nullptr;
    cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;
    cublasLtMatmulAlgo_t algorithm{};

    Plan() = default;
    Plan(const Plan&) = delete;
    Plan& operator=(const Plan&) = delete;
    ~Plan() {
        if (product != nullptr) library().drop_product(product);
        for (const cublasLtMatrixLayout_t layout : {weight, x, y}) {
            if (layout != nullptr) library().drop_layout(layout);
        }
    }
};

}  // namespace

class DenseRunner::Plans {
   public:
    Plans() : workspace_(workspace_bytes) { check_blas(library().create(&handle_), "opening"); }
    Plans(const Plans&) = delete;
    Plans& operator=(const Plans&) = delete;
    ~Plans() { library().destroy(handle_); }

    Plan& plan(const DenseShape& shape, const DenseCall& call) {
        const Key key{shape.inputs,
                      shape.outputs,
                      call.rows,
                      static_cast<int>(shape.input),
                      static_cast<int>(shape.output),
                      static_cast<int>(shape.activation),
                      call.bias != nullptr,
                      shape.tf32};
        const auto found = plans_.find(key);
        if (found != plans_.end()) return found->second;
        // Numbers of rows are the caller's: there is no end to them.
        if (plans_.size() >= most_plans) plans_.clear();
        Plan& plan = plans_[key];
        try {
            describe(plan, shape, call);
            const auto proposals = propose(plan, 1);
            if (proposals.empty())
                throw Error(Status::unsupported, "cuda: cuBLASLt has no product of %zu x %zu x %zu",
                            call.rows, shape.inputs, shape.outputs);
            plan.algorithm = proposals[0].algo;
        } catch (...) {
            plans_.erase(key);
            throw;
        }
        return plan;
    }

    std::vector<cublasLtMatmulHeuristicResult_t> propose(const Plan& plan, int most) {
        cublasLtMatmulPreference_t preference = nullptr;
        check_blas(library().make_preference(&preference), "a preference");
        const size_t bytes = workspace_bytes;
        library().set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof(bytes));
        std::vector<cublasLtMatmulHeuristicResult_t> found(static_cast<size_t>(most));
        int count = 0;
        const cublasStatus_t status = library().propose(handle_, plan.product, plan.weight, plan.x, plan.y,
                                                        plan.y, preference, most, found.data(), &count);
        library().drop_preference(preference);
        if (status != CUBLAS_STATUS_NOT_SUPPORTED) check_blas(status, "asking for algorithms");
        found.resize(static_cast<size_t>(count));
        return found;
    }

    cublasStatus_t multiply(const Plan& plan, const DenseCall& call, const cublasLtMatmulAlgo_t& algorithm) {
        const float one = 1, zero = 0;
        if (call.bias != nullptr)
            library().set_product(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &call.bias,
                                  sizeof(call.bias));
        return library().multiply(handle_, plan.product, &one, call.weight, plan.weight, call.x, plan.x,
                                  &zero, call.y, plan.y, call.y, plan.y, &algorithm, workspace_.as<void>(),
                                  workspace_bytes, call.stream);
    }

   private:
    static constexpr size_t workspace_bytes = size_t{32} << 20, most_plans = 4096;
    using Key = std::tuple<size_t, size_t, size_t, int, int, int, bool, bool>;

    static void describe(Plan& plan, const DenseShape& shape, const DenseCall& call) {
        const Library& l = library();
        check_blas(l.make_product(&plan.product,
                                  shape.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
                   "a product");
        const cublasOperation_t transposed = CUBLAS_OP_T;
        check_blas(l.set_product(plan.product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)),
                   "a product");
        const auto end =
            epilogue(is_fused(shape.activation) ? shape.activation : Activation::none, call.bias != nullptr);
        check_blas(l.set_product(plan.product, CUBLASLT_MATMUL_DESC_EPILOGUE, &end, sizeof(end)),
                   "an epilogue");
        const auto layout = [&](cublasLtMatrixLayout_t& target, TensorType type, size_t rows,
                                size_t columns) {
            check_blas(l.make_layout(&target, data_type(type), rows, columns, static_cast<int64_t>(rows)),
                       "a layout");
        };
        layout(plan.weight, shape.input, shape.inputs, shape.outputs);
        layout(plan.x, shape.input, shape.inputs, call.rows);
        layout(plan.y, shape.output, shape.outputs, call.rows);
    }

    Buffer workspace_;
    cublasLtHandle_t handle_ = nullptr;
    std::map<Key, Plan> plans_;
};

DenseRunner::DenseRunner() : plans_(std::make_unique<Plans>()) {}
DenseRunner::~DenseRunner() = default;

void DenseRunner::run(const DenseShape& shape, const DenseCall& call) {
    const Plan& plan = plans_->plan(shape, call);
    check_blas(plans_->multiply(plan, call, plan.algorithm), "multiplying");
    if (!is_fused(shape.activation))
        activate(shape.activation, shape.output, call.y, call.rows * shape.outputs, call.stream);
}

int DenseRunner::tune(const DenseShape& shape, const DenseCall& call, int most) {
    Plan& plan = plans_->plan(shape, call);
    constexpr int rounds = 5, repeats = 4;
    cudaEvent_t start = nullptr, stop = nullptr;
    check(cudaEventCreate(&start), "an event");
    check(cudaEventCreate(&stop), "an event");
    float best = 0;
    int ran = 0;
    for (const auto& proposal : plans_->propose(plan, most)) {
        std::vector<float> times;
        bool failed = plans_->multiply(plan, call, proposal.algo) != CUBLAS_STATUS_SUCCESS;
        for (int round = 0; round < rounds && !failed; ++round) {
            float ms = 0;
            cudaEventRecord(start, call.stream);
            for (int i = 0; i < repeats; ++i)
                failed = failed || plans_->multiply(plan, call, proposal.algo) != CUBLAS_STATUS_SUCCESS;
            cudaEventRecord(stop, call.stream);
            cudaEventSynchronize(stop);
            cudaEventElapsedTime(&ms, start, stop);
            times.push_back(ms);
        }
        if (failed) continue;
        std::nth_element(times.begin(), times.begin() + rounds / 2, times.end());
        if (ran++ == 0 || times[rounds / 2] < best) {
            best = times[rounds / 2];
            plan.algorithm = proposal.algo;
        }
    }
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
    check(cudaGetLastError(), "timing algorithms");
    return ran;
}

}  // namespace espalier::cuda
