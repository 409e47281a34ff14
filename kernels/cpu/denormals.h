// Numbers below the normal range taken as zeros for as long as this lives: sums of them take a hundred times
// as long on many processors, and mean nothing to a model. Of the calling thread; where the processor has no
// such mode, nothing.
#pragma once

#include <cstdint>

namespace espalier {

class FlushDenormals {
   public:
    FlushDenormals() : before_(read()) { write(before_ | bits); }
    FlushDenormals(const FlushDenormals&) = delete;
    FlushDenormals& operator=(const FlushDenormals&) = delete;
    ~FlushDenormals() { write(before_); }

   private:
#if defined(__SSE__)
    using Control = uint32_t;
    static constexpr Control bits = 0x8040;  // MXCSR: results to zero (FTZ), operands taken as zero (DAZ)
    static Control read() {
        return __builtin_ia32_stmxcsr();
    }
    static void write(Control control) {
        __builtin_ia32_ldmxcsr(control);
    }
#elif defined(__aarch64__)
    using Control = uint64_t;
    static constexpr Control bits = uint64_t{1} << 24;  // FPCR: FZ
    static Control read() {
        Control control;
        asm volatile("mrs %0, fpcr" : "=r"(control));
        return control;
    }
    static void write(Control control) {
        asm volatile("msr fpcr, %0" : : "r"(control));
    }
#else
    using Control = uint32_t;
    static constexpr Control bits = 0;
    static Control read() {
        return 0;
    }
    static void write(Control) {}
#endif

    Control before_;
};

}  // namespace espalier
