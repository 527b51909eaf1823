#include <algorithm>
#include <array>
#include <string>

#include "cuda/kernels/table.h"
#include "cuda/table.h"
#include "cuda/table_rows.h"
#include "fuse/job_check.h"

namespace lora_mmap::cuda {
namespace {

Type type_of(DType dtype) {
  switch (dtype) {
    case DType::F16:
      return kF16;
    case DType::BF16:
      return kBF16;
    case DType::F32:
      return kF32;
    case DType::F64:
      return kF64;
    case DType::F8_E4M3:
      return kE4M3;
    case DType::F8_E5M2:
      return kE5M2;
    case DType::F8_E4M3FNUZ:
      return kE4M3FNUZ;
    default:
      return kE5M2FNUZ;
  }
}

// Whether each group of four neighbours in every row is aligned as one.
bool in_groups(u64 address, int64_t row_stride, bool one_row, u64 nbytes) {
  return address % (4 * nbytes) == 0 && (one_row || row_stride % 4 == 0);
}

bool rows_at_16(u64 address, int64_t row_stride, bool one_row, u64 nbytes) {
  return address % 16 == 0 && (one_row || row_stride * static_cast<int64_t>(nbytes) % 16 == 0);
}

bool has_one_up_row(const Matrix& term, const Job& job) {
  return job.rows == 1 && !term.row_map;
}

u8 layout_of(const Matrix& term, const Job& job) {
  const u64 down = address_of(term.down);
  const u64 up = address_of(term.up);
  const u64 down_nbytes = dtype_bits(term.down_dtype) / 8;
  const u64 up_nbytes = dtype_bits(term.up_dtype) / 8;
  unsigned layout = 0;
  if (down % down_nbytes != 0) layout |= kDownBytes;
  if (up % up_nbytes != 0) layout |= kUpBytes;
  if (rows_at_16(down, term.down_row_stride, term.rank == 1, down_nbytes)) layout |= kDownRows16;
  if (rows_at_16(up, term.up_row_stride, has_one_up_row(term, job), up_nbytes)) layout |= kUpRows16;
  return static_cast<u8>(layout);
}

void require_plain(const Term& term, const Job& job, size_t index) {
  if (!term.is_low_rank()) refuse_job(index, "a term that is not low-rank, not on a GPU yet");
  const bool strided_down = job.cols > 1 && term.matrix.down_col_stride != 1;
  const bool strided_up = term.matrix.rank > 1 && term.matrix.up_col_stride != 1;
  if (term.matrix.rank > 0 && (strided_down || strided_up))
    refuse_job(index, "a factor with a column stride other than 1, not on a GPU yet");
}

TermRow term_row(const Matrix& term, double scale, const Job& job, size_t index) {
  if (term.rank > kMostElements) refuse_job(index, "rank is " + std::to_string(term.rank));
  return {.down = address_of(term.down),
          .up = address_of(term.up),
          .row_map = address_of(term.row_map),
          .col_map = address_of(term.col_map),
          .down_row_stride = term.down_row_stride,
          .up_row_stride = term.up_row_stride,
          .scale = scale,
          .rank = static_cast<i32>(term.rank),
          .down_type = static_cast<u8>(type_of(term.down_dtype)),
          .up_type = static_cast<u8>(type_of(term.up_dtype)),
          .layout = layout_of(term, job),
          .reserved = 0};
}

// The kernels, each with the tiles it cuts.
struct Kernel {
  const char* name;
  TileSize tile;
};
enum KernelIndex : size_t {
  kOrderedF16,
  kOrderedBF16,
  kOrderedF32,
  kFastF16,
  kFastBF16,
  kFastF32,
  kAny,
  kDouble,
  kFuseKernels
};
constexpr std::array<Kernel, kFuseKernels> kKernels{{
    {"lora_mmap_fuse_ordered_f16", kOrderedTile},
    {"lora_mmap_fuse_ordered_bf16", kOrderedTile},
    {"lora_mmap_fuse_ordered_f32", kOrderedTile},
    {"lora_mmap_fuse_fast_f16", kFastTile},
    {"lora_mmap_fuse_fast_bf16", kFastTile},
    {"lora_mmap_fuse_fast_f32", kFastTile},
    {"lora_mmap_fuse_any", kOrderedTile},
    {"lora_mmap_fuse_f64", kF64Tile},
}};

uint32_t shared_nbytes(size_t kernel, int arch) {
  switch (kernel) {
    case kOrderedF16:
    case kOrderedBF16:
      return kOrderedFactorsNbytes + (arch >= 80 ? kOrderedStageNbytes : 0);
    case kFastF16:
    case kFastBF16:
      return 2 * kFastFactorsNbytes + kFastStageNbytes;
    case kFastF32:
      return 2 * kFastFactorsNbytes;
    case kDouble:
      return kF64SharedNbytes;
    default:
      return kOrderedFactorsNbytes;
  }
}

bool in_groups(const Job& job) {
  const u64 nbytes = dtype_bits(job.dtype) / 8;
  return job.weight_col_stride == 1 && job.base_col_stride == 1 && job.cols % 4 == 0 &&
         in_groups(address_of(job.weight), job.weight_row_stride, job.rows == 1, nbytes) &&
         in_groups(address_of(job.base), job.base_row_stride, job.rows == 1, nbytes);
}

bool fits_ordered(const Matrix& term, const Job& job) {
  const DType dtype = term.down_dtype;
  const u64 nbytes = dtype_bits(dtype) / 8;
  return (dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F32) && term.up_dtype == dtype &&
         !term.col_map && term.rank % 4 == 0 &&
         in_groups(address_of(term.down), term.down_row_stride, false, nbytes) &&
         in_groups(address_of(term.up), term.up_row_stride, has_one_up_row(term, job), nbytes);
}

bool fits_fast(const Matrix& term, int arch) {
  const DType dtype = term.down_dtype;
  return (dtype == DType::F16 || (dtype == DType::BF16 && arch >= 80)) && term.up_dtype == dtype &&
         !term.col_map && !term.row_map;
}

bool fits_fast(const Job& job, int arch) {
  const u64 nbytes = dtype_bits(job.dtype) / 8;
  const bool one_row = job.rows == 1;
  const auto fits = [&](const Term& term) { return term.matrix.rank == 0 || fits_fast(term.matrix, arch); };
  return total_rank(job) > 0 && job.weight_col_stride == 1 && job.base_col_stride == 1 && job.cols % 8 == 0 &&
         rows_at_16(address_of(job.weight), job.weight_row_stride, one_row, nbytes) &&
         rows_at_16(address_of(job.base), job.base_row_stride, one_row, nbytes) &&
         std::all_of(job.terms.begin(), job.terms.end(), fits);
}

KernelIndex kernel_for(const Job& job, Numerics numerics, int arch) {
  if (job.dtype == DType::F64) return kDouble;
  if (numerics == Numerics::fast && fits_fast(job, arch))
    return job.dtype == DType::F16 ? kFastF16 : job.dtype == DType::BF16 ? kFastBF16 : kFastF32;
  const auto fits = [&](const Term& term) { return term.matrix.rank == 0 || fits_ordered(term.matrix, job); };
  if (!in_groups(job) || !std::all_of(job.terms.begin(), job.terms.end(), fits)) return kAny;
  return job.dtype == DType::F16 ? kOrderedF16 : job.dtype == DType::BF16 ? kOrderedBF16 : kOrderedF32;
}

// The jobs of one kernel.
struct Share {
  std::vector<JobRow> rows;
  uint64_t tiles = 0;
};

void add_job(const Job& job, size_t index, const Kernel& kernel, Share& share, std::vector<TermRow>& terms) {
  if (job.rows > kMostElements || job.cols > kMostElements)
    refuse_job(index, std::to_string(job.rows) + " x " + std::to_string(job.cols) +
                          " elements, expected less than 2^31 each way");
  const auto first_term = static_cast<u32>(terms.size());
  for (const Term& term : job.terms)
    if (term.matrix.rank > 0) terms.push_back(term_row(term.matrix, term.scale, job, index));
  const auto first_tile = static_cast<u32>(share.tiles);
  const u32 across = cut(kernel.tile, job.rows, job.cols, share.tiles);
  if (share.tiles > kMostTiles) refuse_job(index, "with it the jobs have more than 2^31 tiles");
  share.rows.push_back({.weight = address_of(job.weight),
                        .base = address_of(job.base),
                        .rows = job.rows,
                        .cols = job.cols,
                        .weight_row_stride = job.weight_row_stride,
                        .weight_col_stride = job.weight_col_stride,
                        .base_row_stride = job.base_row_stride,
                        .base_col_stride = job.base_col_stride,
                        .first_tile = first_tile,
                        .tiles_across = across,
                        .type = type_of(job.dtype),
                        .first_term = first_term,
                        .n_terms = static_cast<u32>(terms.size()) - first_term,
                        .flag = static_cast<u32>(index)});
}

static_assert(sizeof(TermRow) % 16 == 0 && sizeof(JobRow) % 8 == 0);

}  // namespace

Table fuse_table(const std::vector<Job>& jobs, Numerics numerics, int arch) {
  check_jobs(jobs);
  std::array<Share, kFuseKernels> shares;
  std::vector<TermRow> terms;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const Job& job = jobs[i];
    if (job.rows == 0 || job.cols == 0) continue;
    for (const Term& term : job.terms) require_plain(term, job, i);
    const KernelIndex kernel = kernel_for(job, numerics, arch);
    add_job(job, i, kKernels[kernel], shares[kernel], terms);
  }
  Table table;
  append(table.bytes, terms);
  for (size_t k = 0; k < kFuseKernels; ++k) {
    const Share& share = shares[k];
    if (share.rows.empty()) continue;
    table.launches.push_back({.kernel = kKernels[k].name,
                              .threads = kThreads,
                              .shared_nbytes = shared_nbytes(k, arch),
                              .tiles = static_cast<uint32_t>(share.tiles),
                              .rows = static_cast<uint32_t>(share.rows.size()),
                              .rows_offset = append(table.bytes, share.rows),
                              .terms_offset = 0});
  }
  return table;
}

}  // namespace lora_mmap::cuda
