#include "cuda/images/images.h"

namespace lora_mmap::cuda {

Toolkit toolkit() {
  return {"stub", 12, 8};
}

std::span<const Image> images() {
  static const std::byte text[] = {std::byte{'.'}, std::byte{0}};
  static const Image only[] = {{90, false, text}};
  return only;
}

std::string image_name(const Image& image) {
  return (image.ptx ? "PTX compute_" : "sm_") + std::to_string(image.arch);
}

std::optional<Image> image_for(int major, int minor, int driver, std::string& why) {
  return choose_image(images(), toolkit(), major, minor, driver, why);
}

std::optional<Image> choose_image(std::span<const Image> images, Toolkit, int major, int, int,
                                  std::string& why) {
  for (const Image& image : images)
    if (image.arch / 10 == major) return image;
  why = "no image fits; on board: sm_90";
  return std::nullopt;
}

}  // namespace lora_mmap::cuda
