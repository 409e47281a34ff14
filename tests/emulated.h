// Whether the tests run in an emulator, twenty times as slow as a processor: there a test that repeats one
// thing for many inputs takes fewer of them. On the machine itself nothing is left out.
#pragma once

namespace espalier::test {

#if defined(ESPALIER_EMULATOR)
inline constexpr bool emulated = true;
#else
inline constexpr bool emulated = false;
#endif

}  // namespace espalier::test
