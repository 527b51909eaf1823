#include "bindings/bindings.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native core of lora_mmap: safetensors headers, key patterns, streaming and fusion. Torch-free.";
  using namespace lora_mmap::bindings;
  register_errors();
  register_tensors(m);
  register_safetensors(m);
  register_keys(m);
  register_stream(m);
  register_fuse(m);
  register_branch(m);
  register_file_source(m);
  register_undo(m);
  register_cuda_images(m);
  register_cuda(m);
  register_cuda_streaming(m);
  register_cuda_launches(m);
  register_cuda_kernels(m);
  register_probe(m);
}
