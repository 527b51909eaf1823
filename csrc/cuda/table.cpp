#include "cuda/table.h"

#include <array>
#include <cstring>
#include <limits>
#include <string>

#include "base/error.h"
#include "cuda/kernels/table.h"
#include "fuse/job_check.h"

namespace lora_mmap::cuda {
namespace {

// A tile number and a grid's stride must add up within 32 bits.
constexpr uint64_t kMostTiles = uint64_t{1} << 31;
constexpr int64_t kMostElements = std::numeric_limits<int32_t>::max() - 4096;  // and an index with a tile's size

u64 address_of(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer);
}

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

u8 layout_of(const Term& term, const Job& job) {
  const auto loads_groups = [](DType dtype) {
    return dtype == DType::F16 || dtype == DType::BF16 || dtype == DType::F32;
  };
  const u64 down = address_of(term.down);
  const u64 up = address_of(term.up);
  const u64 down_nbytes = dtype_bits(term.down_dtype) / 8;
  const u64 up_nbytes = dtype_bits(term.up_dtype) / 8;
  const bool one_up_row = job.rows == 1 && !term.row_map;
  unsigned layout = 0;
  if (!term.col_map && loads_groups(term.down_dtype) &&
      in_groups(down, term.down_row_stride, term.rank == 1, down_nbytes))
    layout |= kDownGroups;
  if (loads_groups(term.up_dtype) && in_groups(up, term.up_row_stride, one_up_row, up_nbytes))
    layout |= kUpGroups;
  if (down % down_nbytes != 0) layout |= kDownBytes;
  if (up % up_nbytes != 0) layout |= kUpBytes;
  if (!term.col_map && rows_at_16(down, term.down_row_stride, term.rank == 1, down_nbytes))
    layout |= kDownRows16;
  if (rows_at_16(up, term.up_row_stride, one_up_row, up_nbytes)) layout |= kUpRows16;
  return static_cast<u8>(layout);
}

TermRow term_row(const Term& term, const Job& job, size_t index) {
  if (term.rank > kMostElements) refuse_job(index, "rank is " + std::to_string(term.rank));
  return {.down = address_of(term.down),
          .up = address_of(term.up),
          .row_map = address_of(term.row_map),
          .col_map = address_of(term.col_map),
          .down_row_stride = term.down_row_stride,
          .up_row_stride = term.up_row_stride,
          .scale = term.scale,
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
enum KernelIndex : size_t { kOrderedF16, kOrderedBF16, kOrderedF32, kStrided, kDouble, kFuseKernels };
constexpr std::array<Kernel, kFuseKernels> kKernels{{
    {"lora_mmap_fuse_ordered_f16", kOrderedTile},
    {"lora_mmap_fuse_ordered_bf16", kOrderedTile},
    {"lora_mmap_fuse_ordered_f32", kOrderedTile},
    {"lora_mmap_fuse_strided", kOrderedTile},
    {"lora_mmap_fuse_f64", kF64Tile},
}};

uint32_t shared_nbytes(size_t kernel, int arch) {
  switch (kernel) {
    case kOrderedF16:
      return ordered_shared_nbytes(arch, kF16);
    case kOrderedBF16:
      return ordered_shared_nbytes(arch, kBF16);
    case kDouble:
      return kF64SharedNbytes;
    default:
      return kFactorsNbytes;
  }
}

bool in_groups(const Job& job) {
  const u64 nbytes = dtype_bits(job.dtype) / 8;
  return job.weight_col_stride == 1 && job.base_col_stride == 1 && job.cols % 4 == 0 &&
         in_groups(address_of(job.weight), job.weight_row_stride, job.rows == 1, nbytes) &&
         in_groups(address_of(job.base), job.base_row_stride, job.rows == 1, nbytes);
}

KernelIndex kernel_for(const Job& job, Numerics, int) {
  if (job.dtype == DType::F64) return kDouble;
  if (!in_groups(job)) return kStrided;
  return job.dtype == DType::F16 ? kOrderedF16 : job.dtype == DType::BF16 ? kOrderedBF16 : kOrderedF32;
}

// Appends the tiles of `rows` x `cols` to those of a launch; returns how many are side by side.
uint32_t cut(TileSize tile, int64_t rows, int64_t cols, uint64_t& tiles) {
  const uint64_t across = (static_cast<uint64_t>(cols) + tile.cols - 1) / tile.cols;
  tiles += across * ((static_cast<uint64_t>(rows) + tile.rows - 1) / tile.rows);
  return static_cast<uint32_t>(across);
}

template <class Row>
size_t append(std::vector<std::byte>& bytes, const std::vector<Row>& rows) {
  const size_t offset = bytes.size();
  bytes.resize(offset + rows.size() * sizeof(Row));
  if (!rows.empty()) std::memcpy(bytes.data() + offset, rows.data(), rows.size() * sizeof(Row));
  return offset;
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
    if (term.rank > 0) terms.push_back(term_row(term, job, index));
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

static_assert(sizeof(TermRow) % 16 == 0 && sizeof(JobRow) % 8 == 0 && sizeof(CopyRow) % 8 == 0);

}  // namespace

size_t fuse_table_nbytes(const std::vector<Job>& jobs) {
  size_t terms = 0;
  for (const Job& job : jobs) terms += job.terms.size();
  return terms * sizeof(TermRow) + jobs.size() * sizeof(JobRow);
}

Table fuse_table(const std::vector<Job>& jobs, Numerics numerics, int arch) {
  check_jobs(jobs);
  std::array<Share, kFuseKernels> shares;
  std::vector<TermRow> terms;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const Job& job = jobs[i];
    if (job.rows == 0 || job.cols == 0) continue;
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

namespace {

// `rect` in elements of `nbytes`, a multiple of its own; its columns follow each other and fill them.
Rect in_units_of(Rect rect, int64_t nbytes) {
  const int64_t ratio = nbytes / rect.element_nbytes;
  rect.cols /= ratio;
  rect.dst_row_stride /= ratio;
  rect.src_row_stride /= ratio;
  rect.element_nbytes = nbytes;
  return rect;
}

// The widest element by which every row can be copied from its beginning on.
int64_t widest_unit(const Rect& rect) {
  int64_t unit = 16;
  const auto fits = [&] {
    const bool addresses = (address_of(rect.dst) | address_of(rect.src)) % static_cast<u64>(unit) == 0;
    const int64_t ratio = unit / rect.element_nbytes;
    const bool strides = rect.dst_row_stride % ratio == 0 && rect.src_row_stride % ratio == 0;
    return addresses && (rect.rows == 1 || strides);
  };
  while (unit > rect.element_nbytes && !fits()) unit /= 2;
  return unit;
}

Rect columns_from(Rect rect, int64_t first, int64_t cols) {
  const int64_t nbytes = first * rect.element_nbytes;
  rect.dst = static_cast<std::byte*>(rect.dst) + nbytes * rect.dst_col_stride;
  rect.src = static_cast<const std::byte*>(rect.src) + nbytes * rect.src_col_stride;
  rect.cols = cols;
  return rect;
}

// At most three rectangles that the kernel copies well: the elements as wide as they go, a long row folded to
// rows as long as a tile, and what is left over of either.
void widen(const Rect& whole, std::vector<Rect>& parts) {
  const Rect rect = normalised(whole);
  if (rect.dst_col_stride != 1 || rect.src_col_stride != 1) {
    parts.push_back(rect);
    return;
  }
  const int64_t unit = widest_unit(rect);
  const int64_t ratio = unit / rect.element_nbytes;
  const int64_t covered = rect.cols / ratio * ratio;
  if (covered < rect.cols) parts.push_back(columns_from(rect, covered, rect.cols - covered));
  if (covered == 0) return;
  Rect wide = in_units_of(columns_from(rect, 0, covered), unit);
  constexpr int64_t kRow = kCopyTile.cols;
  if (wide.rows == 1 && wide.cols > kRow) {
    const int64_t left = wide.cols % kRow;
    if (left > 0) parts.push_back(columns_from(wide, wide.cols - left, left));
    wide.rows = wide.cols / kRow;
    wide.cols = wide.dst_row_stride = wide.src_row_stride = kRow;
  }
  parts.push_back(wide);
}

constexpr size_t kMostParts = 3;

}  // namespace

size_t copy_table_nbytes(const std::vector<Rect>& rects) {
  return kMostParts * rects.size() * sizeof(CopyRow);
}

Table copy_table(const std::vector<Rect>& rects) {
  check_rects(rects);
  std::vector<Rect> parts;
  for (const Rect& rect : rects)
    if (rect.rows && rect.cols) widen(rect, parts);
  std::vector<CopyRow> rows;
  uint64_t tiles = 0;
  for (const Rect& part : parts) {
    if (part.rows > kMostElements || part.cols > kMostElements)
      throw Error(Fault::argument, "[copy] a rectangle of " + std::to_string(part.rows) + " x " +
                                       std::to_string(part.cols) + " elements, expected less than 2^31 each way");
    const auto first_tile = static_cast<u32>(tiles);
    const u32 across = cut(kCopyTile, part.rows, part.cols, tiles);
    if (tiles > kMostTiles) throw Error(Fault::argument, "[copy] the rectangles have more than 2^31 tiles");
    rows.push_back({.dst = address_of(part.dst),
                    .src = address_of(part.src),
                    .rows = part.rows,
                    .cols = part.cols,
                    .dst_row_stride = part.dst_row_stride,
                    .dst_col_stride = part.dst_col_stride,
                    .src_row_stride = part.src_row_stride,
                    .src_col_stride = part.src_col_stride,
                    .first_tile = first_tile,
                    .tiles_across = across,
                    .element_nbytes = static_cast<u32>(part.element_nbytes),
                    .reserved = 0});
  }
  Table table;
  append(table.bytes, rows);
  if (!rows.empty())
    table.launches.push_back({.kernel = "lora_mmap_copy",
                              .threads = kThreads,
                              .shared_nbytes = 0,
                              .tiles = static_cast<uint32_t>(tiles),
                              .rows = static_cast<uint32_t>(rows.size()),
                              .rows_offset = 0,
                              .terms_offset = 0});
  return table;
}

}  // namespace lora_mmap::cuda
