# Compiles csrc/cuda/kernels/kernels.cu into images and embeds them. Without a CUDA compiler the table is empty and
# everything else the same. Sets image_table, a source file for the core.
set(LORA_MMAP_CUDA "auto" CACHE STRING "CUDA release of the images: off, auto, 12.6, 12.8, 12.9, 13.0")
set(LORA_MMAP_CUDA_ARCHS "" CACHE STRING "Architectures of the images, such as 80;90; empty: the release's default")

set(images_dir ${CMAKE_CURRENT_BINARY_DIR}/cuda_images)
set(image_table ${images_dir}/image_table.cpp)
set(compile_images_dir ${CMAKE_CURRENT_LIST_DIR})
set(kernels ${CMAKE_CURRENT_SOURCE_DIR}/csrc/cuda/kernels/kernels.cu)
file(GLOB compile_images_sources CONFIGURE_DEPENDS ${compile_images_dir}/compile_images/*.py)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${compile_images_sources})

execute_process(
  COMMAND ${Python_EXECUTABLE} -m compile_images choose
    "--cuda=${LORA_MMAP_CUDA}" "--archs=${LORA_MMAP_CUDA_ARCHS}" --out ${images_dir}
  WORKING_DIRECTORY ${compile_images_dir}
  OUTPUT_VARIABLE chosen ERROR_VARIABLE refused RESULT_VARIABLE failed
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_STRIP_TRAILING_WHITESPACE)
if(failed)
  message(FATAL_ERROR "${refused}")
endif()
message(STATUS "${chosen}")
include(${images_dir}/choice.cmake)

# One command an image, so that they are made side by side.
set(image_paths)
foreach(target file IN ZIP_LISTS image_targets image_files)
  add_custom_command(
    OUTPUT ${images_dir}/${file}
    COMMAND ${Python_EXECUTABLE} -m compile_images compile
      --compiler ${image_compiler} --path ${image_compiler_path} --target ${target}
      --source ${kernels} --include ${CMAKE_CURRENT_SOURCE_DIR}/csrc --out ${images_dir}/${file} $<$<BOOL:${LORA_MMAP_WERROR}>:--werror>
    COMMAND_EXPAND_LISTS
    WORKING_DIRECTORY ${compile_images_dir}
    DEPENDS ${compile_images_sources} ${images_dir}/choice.cmake
    DEPFILE ${images_dir}/${file}.d
    COMMENT "Compiling CUDA image ${file}"
    VERBATIM)
  list(APPEND image_paths ${images_dir}/${file})
endforeach()
set_source_files_properties(${image_table} PROPERTIES OBJECT_DEPENDS "${image_paths}")
