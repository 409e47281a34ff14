// Whether the tests run in an emulator or under sanitizers, some twenty times as slow as otherwise: there a
// test that repeats one thing for many inputs takes fewer of them. In a Release build on the machine itself
// nothing is left out.
#pragma once

namespace espalier::test {

#if defined(ESPALIER_EMULATOR)
inline constexpr bool emulated = true;
#else
inline constexpr bool emulated = false;
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ESPALIER_SANITIZED_BY_CLANG 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(ESPALIER_SANITIZED_BY_CLANG)
inline constexpr bool slow = true;
#else
inline constexpr bool slow = emulated;
#endif

}  // namespace espalier::test
