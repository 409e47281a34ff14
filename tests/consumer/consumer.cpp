// consumer_cpp MODEL: the same through the C++ wrapper.
#include <cstdio>
#include <espalier/espalier.hpp>

int main(int argc, char** argv) {
    try {
        const espalier::api::Model model(argc > 1 ? argv[1] : "");
        espalier::api::Context context(model);
        const auto result = context.classify("a charming and often affecting journey");
        std::printf("%s %.4f\n", result.name.c_str(), static_cast<double>(result.probability));
        return 0;
    } catch (const espalier::api::Exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
