// The kernels as this build carries them: one cubin per architecture, and PTX of the highest as a last
// resort.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace lora_mmap::cuda {

struct Image {
  int arch = 0;  // 10 * major + minor of the compute capability: 75, 80 ... 120
  bool ptx = false;
  std::span<const std::byte> bytes;  // of the process's image; a PTX text ends with a NUL
};

struct Toolkit {
  std::string_view compiler;  // "nvrtc", "nvcc", or "" where the build carries no images
  int major = 0;
  int minor = 0;
};

// Both come from a source file that the build writes: see compile_images/table.py.
Toolkit toolkit();
std::span<const Image> images();  // cubins by ascending arch, then PTX

std::string image_name(const Image& image);  // "sm_90", "PTX compute_120"

// The image for a device of compute capability `major`.`minor` under a driver of version `driver` (as
// cuDriverGetVersion gives it: 1000 * major + 10 * minor): the cubin of the same major version and the
// highest minor one that is not above the device's; failing that, the PTX of an arch not above the device's
// if the driver is at least as new as the toolkit; failing that nullopt, and `why` says so in a sentence that
// names the archs on board. A driver of an older major version than the toolkit's takes none of its images.
std::optional<Image> image_for(int major, int minor, int driver, std::string& why);

// The same over any set of images, so that the choice can be tested.
std::optional<Image> choose_image(std::span<const Image> images, Toolkit toolkit, int major, int minor,
                                  int driver, std::string& why);

}  // namespace lora_mmap::cuda
