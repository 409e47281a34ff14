# Installs the Debian packages that are missing; sourced by ./demo and ./check. Says what it does.

# Sets as_root to what goes before a command of root's.
may_be_root() {
    as_root=()
    [ "$(id -u)" -ne 0 ] || return 0
    command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; } && as_root=(sudo)
}

#   require_architecture NAME      its packages can be installed beside the machine's own
require_architecture() {
    { dpkg --print-architecture && dpkg --print-foreign-architectures; } | grep -qx "$1" && return 0
    if ! may_be_root; then
        echo "Packages of $1 are needed, which only root can allow. Please run: dpkg --add-architecture $1" >&2
        return 1
    fi
    echo "Adding the architecture $1 to dpkg's"
    "${as_root[@]}" dpkg --add-architecture "$1"
}

#   require_packages NAME...
require_packages() {
    local missing=()
    local package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! may_be_root; then
        echo "These Debian packages are missing, and only root can install them. Please run:" >&2
        echo "  apt-get update && apt-get install -y ${missing[*]}" >&2
        return 1
    fi
    echo "Installing ${missing[*]}"
    # A stopped container has no package lists yet; a failed update may still leave good ones behind.
    "${as_root[@]}" apt-get update -qq || echo "apt-get update failed; trying with the lists that are here" >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# ocl-icd-opencl-dev: the CMake files of libdnnl-dev ask for OpenCL, which that package only recommends.
build_packages=(g++ cmake ninja-build libdnnl-dev ocl-icd-opencl-dev libxsimd-dev libxxhash-dev libcli11-dev nlohmann-json3-dev)
check_packages=(doctest-dev libbenchmark-dev libsentencepiece-dev clang clang-format clang-tidy libclang-rt-14-dev libomp-dev binutils python3 python3-dev python3-venv python3-numpy python3-torch)
# From PyPI, with all that they need but numpy and PyTorch: versions that work with Debian's Python 3.11, numpy 1.24 and PyTorch 1.13.
training_packages=(tokenizers==0.23.3 safetensors==0.8.0
    matplotlib==3.10.9 contourpy==1.3.2 cycler==0.12.1 fonttools==4.68.0 kiwisolver==1.5.1 packaging==26.4 pillow==13.0.0
    pyparsing==3.2.5 python-dateutil==2.9.0.post0 six==1.17.0
    pytest==9.2.0 iniconfig==2.3.1 pluggy==1.7.0 pygments==2.21.0)
# Cross builds: the compiler, the emulator that runs what it makes, and the libraries of the other architecture.
arm_packages=(g++-aarch64-linux-gnu qemu-user-static libxsimd-dev:arm64 libstdc++6:arm64 libgomp1:arm64)
armv7_packages=(g++-arm-linux-gnueabihf qemu-user-static libxsimd-dev:armhf libstdc++6:armhf libgomp1:armhf)
# For the page of routes.
browser_packages=(chromium)
# The documentation site; pkg-config: for a command of its pages.
site_packages=(mkdocs git pkg-config)
# From PyPI, without what they need beside these: to build the Python package and to test it. Debian has numpy and PyTorch.
python_packages=(scikit-build-core==1.1.2 nanobind==3.1.0 packaging==26.4 pathspec==1.1.1 fastfeedforward==0.2.1 safetensors==0.8.0
    pytest==9.2.0 iniconfig==2.3.1 pluggy==1.7.0 pygments==2.21.0)
# From PyPI, all that ray[data] needs: for the batch job.
ray_packages=(
    attrs==26.1.0 certifi==2026.10.19.post1 charset-normalizer==3.5.3 click==8.5.1 filelock==4.3.1 fsspec==2026.9.0
    idna==3.20 iniconfig==2.3.1 jsonschema==4.26.0 jsonschema-specifications==2025.9.1 msgpack==1.2.4 numpy==2.4.6
    packaging==26.4 pandas==3.1.1 pluggy==1.7.0 protobuf==7.36.2 pyarrow==26.0.1 Pygments==2.21.0 pytest==9.2.0
    python-dateutil==4.0.0 PyYAML==6.0.4 ray==2.60.0 referencing==0.37.0 requests==2.34.2 rpds-py==2026.9.1
    typing_extensions==4.16.0 tzdata==2026.6 urllib3==2.8.0)
