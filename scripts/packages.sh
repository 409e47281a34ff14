# Installs the Debian packages that are missing; sourced by ./demo and ./check. Says what it does.
#   require_packages NAME...
require_packages() {
    local missing=()
    local package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
            as_root=(sudo)
        else
            echo "These Debian packages are missing, and only root can install them. Please run:" >&2
            echo "  apt-get update && apt-get install -y ${missing[*]}" >&2
            return 1
        fi
    fi
    echo "Installing ${missing[*]}"
    # A stopped container has no package lists yet; a failed update may still leave good ones behind.
    "${as_root[@]}" apt-get update -qq || echo "apt-get update failed; trying with the lists that are here" >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# ocl-icd-opencl-dev: the CMake files of libdnnl-dev ask for OpenCL, which that package only recommends.
build_packages=(g++ cmake ninja-build libdnnl-dev ocl-icd-opencl-dev libxsimd-dev libxxhash-dev libutf8proc-dev libcli11-dev nlohmann-json3-dev)
check_packages=(doctest-dev libbenchmark-dev clang clang-format clang-tidy libclang-rt-14-dev binutils python3 python3-venv)
