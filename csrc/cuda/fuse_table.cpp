#include <algorithm>
#include <array>
#include <string>

#include "cuda/kernels/table.h"
#include "cuda/table.h"
#include "cuda/table_rows.h"
#include "cuda/term_rows.h"
#include "fuse/job_check.h"

namespace lora_mmap::cuda {
namespace {

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

// Whether the kernels of plain pairs take the term.
bool is_plain(const Term& term, const Job& job) {
  const Matrix& matrix = term.matrix;
  const bool strided_down = job.cols > 1 && matrix.down_col_stride != 1;
  const bool strided_up = matrix.rank > 1 && matrix.up_col_stride != 1;
  return term.is_low_rank() && (matrix.rank == 0 || (!strided_down && !strided_up));
}

bool is_plain(const Job& job) {
  return std::all_of(job.terms.begin(), job.terms.end(),
                     [&](const Term& term) { return is_plain(term, job); });
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
  kTerms,
  kTermsDouble,
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
    {"lora_mmap_fuse_terms", kTermsTile},
    {"lora_mmap_fuse_terms_f64", kTermsF64Tile},
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
    case kTerms:
    case kTermsDouble:
      return kTermsSharedNbytes;
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
  if (!is_plain(job)) return job.dtype == DType::F64 ? kTermsDouble : kTerms;
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

// The terms of all jobs, by the rows that their kernels take.
struct Terms {
  std::vector<TermRow> plain;
  std::vector<AnyTermRow> any;
};

bool takes_any_terms(size_t kernel) {
  return kernel == kTerms || kernel == kTermsDouble;
}

// Plain terms without ranks are left out.
uint32_t add_terms(const Job& job, size_t index, Terms& terms) {
  const size_t before = terms.plain.size();
  for (const Term& term : job.terms)
    if (term.matrix.rank > 0) terms.plain.push_back(term_row(term.matrix, term.scale, job, index));
  return static_cast<uint32_t>(terms.plain.size() - before);
}

uint32_t add_any_terms(const Job& job, size_t index, Terms& terms) {
  for (const Term& term : job.terms) terms.any.push_back(any_term_row(term, index));
  return static_cast<uint32_t>(job.terms.size());
}

void add_job(const Job& job, size_t index, KernelIndex at, Share& share, Terms& terms) {
  check_extent(job.rows, job.cols, index);
  const Kernel& kernel = kKernels[at];
  const bool any = takes_any_terms(at);
  const size_t first_term = any ? terms.any.size() : terms.plain.size();
  const uint32_t n_terms = any ? add_any_terms(job, index, terms) : add_terms(job, index, terms);
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
                        .first_term = static_cast<u32>(first_term),
                        .n_terms = n_terms,
                        .flag = static_cast<u32>(index)});
}

static_assert(sizeof(TermRow) % 16 == 0 && sizeof(JobRow) % 8 == 0);

}  // namespace

Table fuse_table(const std::vector<Job>& jobs, Numerics numerics, int arch) {
  check_jobs(jobs);
  std::array<Share, kFuseKernels> shares;
  Terms terms;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const Job& job = jobs[i];
    if (job.rows == 0 || job.cols == 0) continue;
    const KernelIndex kernel = kernel_for(job, numerics, arch);
    add_job(job, i, kernel, shares[kernel], terms);
  }
  Table table;
  for (const Share& share : shares)
    for (const JobRow& row : share.rows) table.data.push_back(row.base);
  append(table.bytes, terms.plain);
  const size_t any_terms_offset = append(table.bytes, terms.any);
  for (size_t k = 0; k < kFuseKernels; ++k) {
    const Share& share = shares[k];
    if (share.rows.empty()) continue;
    table.launches.push_back({.kernel = kKernels[k].name,
                              .threads = kThreads,
                              .shared_nbytes = shared_nbytes(k, arch),
                              .tiles = static_cast<uint32_t>(share.tiles),
                              .rows = static_cast<uint32_t>(share.rows.size()),
                              .rows_offset = append(table.bytes, share.rows),
                              .terms_offset = takes_any_terms(k) ? any_terms_offset : 0});
  }
  return table;
}

}  // namespace lora_mmap::cuda
