// One registration function per room; each is defined in its own file.
#pragma once

#include <pybind11/pybind11.h>

namespace lora_mmap::bindings {

void register_errors();
void register_safetensors(pybind11::module_& m);
void register_keys(pybind11::module_& m);
void register_tensors(pybind11::module_& m);
void register_stream(pybind11::module_& m);
void register_fuse(pybind11::module_& m);
void register_branch(pybind11::module_& m);
void register_file_source(pybind11::module_& m);
void register_undo(pybind11::module_& m);
void register_cuda_images(pybind11::module_& m);
void register_cuda(pybind11::module_& m);
void register_cuda_streaming(pybind11::module_& m);
void register_cuda_launches(pybind11::module_& m);
void register_cuda_kernels(pybind11::module_& m);
void register_probe(pybind11::module_& m);

}  // namespace lora_mmap::bindings
