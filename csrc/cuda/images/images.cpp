#include "cuda/images/images.h"

namespace lora_mmap::cuda {
namespace {

std::string release(int major, int minor) {
  return std::to_string(major) + "." + std::to_string(minor);
}

std::string on_board(std::span<const Image> images) {
  std::string names;
  for (const Image& image : images) {
    if (!names.empty()) names += ", ";
    names += image_name(image);
  }
  return names;
}

const Image* best_cubin(std::span<const Image> images, int arch) {
  const Image* best = nullptr;
  for (const Image& image : images) {
    const bool runs = !image.ptx && image.arch / 10 == arch / 10 && image.arch <= arch;
    if (runs && (best == nullptr || image.arch > best->arch)) best = &image;
  }
  return best;
}

const Image* best_ptx(std::span<const Image> images, int arch) {
  const Image* best = nullptr;
  for (const Image& image : images) {
    const bool compiles = image.ptx && image.arch <= arch;
    if (compiles && (best == nullptr || image.arch > best->arch)) best = &image;
  }
  return best;
}

}  // namespace

std::string image_name(const Image& image) {
  return (image.ptx ? "PTX compute_" : "sm_") + std::to_string(image.arch);
}

std::optional<Image> choose_image(std::span<const Image> images, Toolkit toolkit, int major, int minor,
                                  int driver, std::string& why) {
  if (images.empty()) {
    why = "this build of lora_mmap carries no CUDA images";
    return std::nullopt;
  }
  const std::string built = "images built with CUDA " + release(toolkit.major, toolkit.minor);
  const std::string has = "the driver is for CUDA " + release(driver / 1000, driver % 1000 / 10);
  if (driver / 1000 < toolkit.major) {
    why = built + " need a driver for CUDA " + release(toolkit.major, 0) + " or newer; " + has;
    return std::nullopt;
  }
  const int arch = 10 * major + minor;
  if (const Image* cubin = best_cubin(images, arch)) return *cubin;

  why = "no image fits compute capability " + release(major, minor) + "; on board: " + on_board(images);
  const Image* ptx = best_ptx(images, arch);
  if (ptx == nullptr) return std::nullopt;
  if (driver < 1000 * toolkit.major + 10 * toolkit.minor) {
    why +=
        ", whose PTX needs a driver for CUDA " + release(toolkit.major, toolkit.minor) + " or newer; " + has;
    return std::nullopt;
  }
  why.clear();
  return *ptx;
}

std::optional<Image> image_for(int major, int minor, int driver, std::string& why) {
  return choose_image(images(), toolkit(), major, minor, driver, why);
}

}  // namespace lora_mmap::cuda
