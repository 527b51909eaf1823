#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "cuda/images/images.h"

namespace py = pybind11;

namespace lora_mmap::bindings {
namespace {

using Choice = std::pair<py::object, std::string>;

py::dict images() {
  const cuda::Toolkit toolkit = cuda::toolkit();
  py::list archs;
  py::object ptx = py::none();
  size_t nbytes = 0;
  for (const cuda::Image& image : cuda::images()) {
    nbytes += image.bytes.size();
    if (image.ptx) {
      ptx = py::int_(image.arch);
    } else {
      archs.append(image.arch);
    }
  }
  py::object release = py::none();
  if (toolkit.major != 0) {
    release = py::str(std::to_string(toolkit.major) + "." + std::to_string(toolkit.minor));
  }
  using py::literals::operator""_a;
  return py::dict("compiler"_a = toolkit.compiler, "toolkit"_a = release, "archs"_a = archs, "ptx"_a = ptx,
                  "nbytes"_a = nbytes);
}

py::bytes image_bytes(int arch, bool ptx) {
  for (const cuda::Image& image : cuda::images()) {
    if (image.arch == arch && image.ptx == ptx) {
      return py::bytes(reinterpret_cast<const char*>(image.bytes.data()), image.bytes.size());
    }
  }
  throw Error(Fault::argument, "[cuda_image_bytes] this build has no such image: " +
                                   cuda::image_name(cuda::Image{arch, ptx, {}}));
}

Choice described(const std::optional<cuda::Image>& image, const std::string& why) {
  if (!image) return {py::none(), why};
  return {py::str(cuda::image_name(*image)), why};
}

Choice image_for(int major, int minor, int driver) {
  std::string why;
  const auto image = cuda::image_for(major, minor, driver, why);
  return described(image, why);
}

Choice choose_image(const std::vector<int>& archs, const std::vector<int>& ptx, std::pair<int, int> toolkit,
                    std::pair<int, int> capability, int driver) {
  std::vector<cuda::Image> images;
  for (const int arch : archs) images.push_back({arch, false, {}});
  for (const int arch : ptx) images.push_back({arch, true, {}});
  std::string why;
  const auto image = cuda::choose_image(images, {"", toolkit.first, toolkit.second}, capability.first,
                                        capability.second, driver, why);
  return described(image, why);
}

}  // namespace

void register_cuda_images(py::module_& m) {
  m.def("images", images, "The CUDA images of this build: compiler, toolkit, archs, ptx, nbytes.");
  m.def("cuda_image_bytes", image_bytes, py::arg("arch"), py::arg("ptx") = false,
        "A copy of one image. A PTX text ends with a NUL.");
  m.def("cuda_image_for", image_for, py::arg("major"), py::arg("minor"), py::arg("driver"),
        "The image that a device of that compute capability would run, or None and why there is none.");
  m.def("choose_cuda_image", choose_image, py::arg("archs"), py::arg("ptx"), py::arg("toolkit"),
        py::arg("capability"), py::arg("driver"), "The same over made-up images.");
}

}  // namespace lora_mmap::bindings
