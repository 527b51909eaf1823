#include <algorithm>
#include <array>

#include "cuda/kernels/table.h"
#include "cuda/table.h"
#include "cuda/table_rows.h"
#include "cuda/term_rows.h"
#include "fuse/job_check.h"

namespace lora_mmap::cuda {
namespace {

// The launches, in this order, each with the number of the job that each of its rows is.
enum LaunchIndex : size_t { kNorms, kNormsF64, kGains, kLaunches };
constexpr std::array<const char*, kLaunches> kNames{"lora_mmap_norms", "lora_mmap_norms_f64",
                                                    "lora_mmap_gains"};

struct Share {
  std::vector<GainsRow> rows;
  uint64_t tiles = 0;

  void add(GainsRow row, int64_t size, u32 step, size_t job) {
    row.first_tile = static_cast<u32>(tiles);
    tiles += (static_cast<uint64_t>(size) + step - 1) / step;
    if (tiles > kMostTiles) refuse_job(job, "with it the jobs have more than 2^31 tiles");
    rows.push_back(row);
  }
};

GainsRow gains_row(const Gains& gains, size_t index, uint64_t first_sum) {
  const u64 magnitude = address_of(gains.magnitude);
  return {.base = address_of(gains.job.base),
          .rows = gains.job.rows,
          .cols = gains.job.cols,
          .base_row_stride = gains.job.base_row_stride,
          .base_col_stride = gains.job.base_col_stride,
          .groups = address_of(gains.groups),
          .magnitude = magnitude,
          .magnitude_map = address_of(gains.magnitude_map),
          .out = address_of(gains.out),
          .first_sum = first_sum,
          .first_tile = 0,
          .n_groups = static_cast<u32>(gains.n_groups),
          .type = type_of(gains.job.dtype),
          .term = static_cast<u32>(index),
          .by_columns = gains.by_columns ? 1U : 0U,
          .flag = static_cast<u32>(index),
          .magnitude_type = type_of(gains.magnitude_dtype),
          .magnitude_bytes = magnitude % (dtype_bits(gains.magnitude_dtype) / 8) != 0 ? 1U : 0U};
}

static_assert(sizeof(GainsRow) % 8 == 0);

}  // namespace

Table gains_table(const std::vector<Gains>& jobs) {
  check_gains(jobs, Where::device);
  Table table;
  std::array<Share, kLaunches> shares;
  std::vector<AnyTermRow> terms;
  uint64_t sums = 0;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const Job& job = jobs[i].job;
    check_extent(std::max(job.rows, jobs[i].n_groups), job.cols, i);
    terms.push_back(any_term_row(job.terms[0], i));
    table.data.push_back(address_of(job.base));
    const GainsRow row = gains_row(jobs[i], i, sums);
    if (jobs[i].n_groups > 0) shares[kGains].add(row, jobs[i].n_groups, kThreads, i);
    if (job.rows == 0 || job.cols == 0) continue;
    const bool f64 = job.dtype == DType::F64;
    const TileSize tile = f64 ? kTermsF64Tile : kTermsTile;
    const int64_t size = jobs[i].by_columns ? job.cols : job.rows;
    shares[f64 ? kNormsF64 : kNorms].add(row, size, jobs[i].by_columns ? tile.cols : tile.rows, i);
    sums += static_cast<uint64_t>(size);
  }
  append(table.bytes, terms);
  for (size_t k = 0; k < kLaunches; ++k) {
    if (shares[k].rows.empty()) continue;
    table.launches.push_back({.kernel = kNames[k],
                              .threads = kThreads,
                              .shared_nbytes = k == kGains ? 0 : kTermsSharedNbytes,
                              .tiles = static_cast<uint32_t>(shares[k].tiles),
                              .rows = static_cast<uint32_t>(shares[k].rows.size()),
                              .rows_offset = append(table.bytes, shares[k].rows),
                              .terms_offset = 0,
                              .takes = Takes::gains});
  }
  table.sums_nbytes = sums * sizeof(double);
  return table;
}

}  // namespace lora_mmap::cuda
