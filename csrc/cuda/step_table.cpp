#include "cuda/step_table.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "base/error.h"
#include "cuda/kernels/table.h"
#include "cuda/table_rows.h"
#include "cuda/term_rows.h"
#include "fuse/job_check.h"
#include "fuse/weight_format.h"

namespace lora_mmap::cuda {
namespace {

constexpr uint64_t kWord = 4;

[[noreturn]] void refuse(size_t step, const std::string& what) {
  throw Error(Fault::argument, "[step] step " + std::to_string(step) + ": " + what);
}

TileSize tile_of(DType dtype) {
  return dtype == DType::F64 ? kTermsF64Tile : kTermsTile;
}

bool needs_base(const Job& job) {
  return std::any_of(job.terms.begin(), job.terms.end(),
                     [](const Term& term) { return term.times_base || term.gain; });
}

const Job& job_of(const DeviceStep& step) {
  return step.old ? step.old->job : step.next->job;
}

void check_layer(const StepLayer& layer, size_t index) {
  check_extent(layer.job.rows, layer.job.cols, index);
  if (!layer.record.address) refuse(index, "a record is a null pointer");
  if (address_of(layer.record.address) % sizeof(u64) != 0) refuse(index, "a misaligned record");
  if (layer.record.corrections && layer.job.dtype == DType::F64) refuse(index, "corrections of F64");
}

void check_old(const DeviceStep& step, size_t index) {
  const StepLayer& old = *step.old;
  check_layer(old, index);
  if (old.has_values) return;
  if (!old.record.corrections) refuse(index, "neither corrections nor pristine values");
  if (needs_base(old.job)) refuse(index, "old terms that need the base, and no pristine values");
}

void check_next(const DeviceStep& step, size_t index) {
  const StepLayer& next = *step.next;
  check_layer(next, index);
  if (!needs_base(next.job)) return;
  if (next.record.corrections) refuse(index, "corrections for terms that need the base");
  if (step.old && !step.old->has_values && !next.has_values)
    refuse(index, "new terms that need the base, and neither a base nor pristine values in memory");
}

void check_step(const DeviceStep& step, size_t index) {
  if (!step.old && !step.next) refuse(index, "neither old nor new terms");
  if (step.out && (!step.old || step.next))
    refuse(index, "an out takes pristine values from old terms, without new ones");
  if (step.out && (!step.out->address || step.out->row_stride == 0 || step.out->col_stride == 0))
    refuse(index, "the out is a null pointer or has a stride of 0");
  if (step.old) check_old(step, index);
  if (step.next) check_next(step, index);
  if (!step.old || !step.next) return;
  const Job& a = step.old->job;
  const Job& b = step.next->job;
  if (a.weight != b.weight || a.rows != b.rows || a.cols != b.cols || a.dtype != b.dtype)
    refuse(index, "old and new terms of two rectangles");
}

// Blocks take the tiles of all steps in any order.
void check_records(const std::vector<DeviceStep>& steps) {
  std::vector<const void*> records;
  for (const DeviceStep& step : steps)
    for (const auto* layer : {&step.old, &step.next})
      if (*layer) records.push_back((*layer)->record.address);
  std::sort(records.begin(), records.end());
  if (std::adjacent_find(records.begin(), records.end()) != records.end())
    throw Error(Fault::argument, "[step] a record is used twice");
}

void check(const std::vector<DeviceStep>& steps) {
  std::vector<Job> jobs;
  for (size_t i = 0; i < steps.size(); ++i) {
    check_step(steps[i], i);
    for (const auto* layer : {&steps[i].old, &steps[i].next})
      if (*layer) jobs.push_back((*layer)->job);
  }
  check_jobs(jobs);
  check_records(steps);
}

Place base_of(const StepLayer& layer) {
  const Job& job = layer.job;
  if (!layer.has_values) return {};
  return {address_of(job.base), job.base_row_stride, job.base_col_stride, 0};
}

Place weight_of(const Job& job) {
  return {address_of(job.weight), job.weight_row_stride, job.weight_col_stride, 0};
}

bool is_in_groups(const Place& place, const Job& job) {
  const u64 nbytes = dtype_bits(job.dtype) / 8;
  return place.address % (4 * nbytes) == 0 && place.col_stride == 1 && job.cols % 4 == 0 &&
         (job.rows == 1 || place.row_stride % 4 == 0);
}

// The steps of one kernel.
struct Share {
  std::vector<StepRow> rows;
  uint64_t tiles = 0;
};

u32 add_terms(const std::optional<StepLayer>& layer, size_t index, std::vector<AnyTermRow>& terms) {
  if (!layer) return 0;
  for (const Term& term : layer->job.terms) terms.push_back(any_term_row(term, index));
  return static_cast<u32>(layer->job.terms.size());
}

StepRow places_of(const DeviceStep& step) {
  StepRow row{};
  row.weight = weight_of(job_of(step));
  if (step.old) row.pristine = base_of(*step.old);
  if (step.next) row.base = base_of(*step.next);
  row.values = row.base.address ? row.base : row.pristine.address ? row.pristine : row.weight;
  if (step.out) row.out = {address_of(step.out->address), step.out->row_stride, step.out->col_stride, 0};
  for (Place* place : {&row.weight, &row.pristine, &row.base, &row.out})
    place->in_groups = is_in_groups(*place, job_of(step)) ? 1 : 0;
  if (step.old) row.old_record = address_of(step.old->record.address);
  if (step.next) row.new_record = address_of(step.next->record.address);
  return row;
}

// The kernels, with their dynamic shared memory.
struct Kernel {
  const char* name;
  u32 shared_nbytes;
};
enum KernelIndex : size_t { kPairs, kAny, kDouble, kStepKernels };
constexpr std::array<Kernel, kStepKernels> kKernels{{{"lora_mmap_step_pairs", kStepPairsSharedNbytes},
                                                     {"lora_mmap_step", kTermsSharedNbytes},
                                                     {"lora_mmap_step_f64", kTermsSharedNbytes}}};

bool has_pairs_alone(const std::optional<StepLayer>& layer) {
  return !layer || all_low_rank(layer->job);
}

KernelIndex kernel_for(const DeviceStep& step, const StepRow& row) {
  if (row.type == kF64) return kDouble;
  const auto fits = [](const Place& place) { return place.address == 0 || place.in_groups; };
  const bool lies_well = fits(row.weight) && fits(row.pristine) && fits(row.out);
  const bool pairs = has_pairs_alone(step.old) && has_pairs_alone(step.next);
  return lies_well && pairs && row.base.address == 0 ? kPairs : kAny;
}

void add_step(const DeviceStep& step, size_t index, std::array<Share, kStepKernels>& shares,
              std::vector<AnyTermRow>& terms) {
  const Job& job = job_of(step);
  StepRow row = places_of(step);
  row.type = type_of(job.dtype);
  Share& share = shares[kernel_for(step, row)];
  row.rows = job.rows;
  row.cols = job.cols;
  row.flag = static_cast<u32>(index);
  row.first_tile = static_cast<u32>(share.tiles);
  row.tiles_across = cut(tile_of(job.dtype), job.rows, job.cols, share.tiles);
  if (share.tiles > kMostTiles) refuse(index, "with it the steps have more than 2^31 tiles");
  row.n_tiles = static_cast<u32>(share.tiles) - row.first_tile;
  row.old_first_term = static_cast<u32>(terms.size());
  row.old_n_terms = add_terms(step.old, index, terms);
  row.new_first_term = static_cast<u32>(terms.size());
  row.new_n_terms = add_terms(step.next, index, terms);
  if (step.next && step.next->record.corrections) {
    row.corrections = 1;
    row.capacity = static_cast<u32>(step.next->record.capacity_nbytes / kWord);
  }
  share.rows.push_back(row);
}

// Whatever the launches read or write of pristine values.
void add_data(const StepRow& row, std::vector<uint64_t>& data) {
  for (const Place& place : {row.pristine, row.base, row.out})
    if (place.address) data.push_back(place.address);
}

static_assert(sizeof(StepRow) % 8 == 0 && sizeof(RecordHead) % 8 == 0 && sizeof(TileRecord) % 8 == 0);

}  // namespace

RecordLayout record_layout(int64_t rows, int64_t cols, DType dtype, uint64_t corrections_nbytes) {
  const auto refuse_record = [&](const std::string& what) {
    throw Error(Fault::argument, "[step] a record of " + std::to_string(rows) + " x " + std::to_string(cols) +
                                     " " + std::string(dtype_name(dtype)) + ": " + what);
  };
  if (rows < 0 || cols < 0) refuse_record("negative size");
  if (!is_weight_dtype(dtype)) refuse_record("expected F16, BF16, F32 or F64");
  if (dtype == DType::F64 && corrections_nbytes > 0) refuse_record("corrections of F64");
  if (rows > kMostElements || cols > kMostElements) refuse_record("expected less than 2^31 each way");
  uint64_t tiles = 0;
  cut(tile_of(dtype), rows, cols, tiles);
  if (tiles > kMostTiles) refuse_record("more than 2^31 tiles");
  constexpr uint64_t kMostWords = std::numeric_limits<u32>::max() / 2;
  const uint64_t words = std::min((corrections_nbytes + kWord - 1) / kWord, kMostWords);
  return {tiles, sizeof(RecordHead) + tiles * sizeof(TileRecord), words * kWord};
}

Table step_table(const std::vector<DeviceStep>& steps, bool force) {
  check(steps);
  std::array<Share, kStepKernels> shares;
  std::vector<AnyTermRow> terms;
  for (size_t i = 0; i < steps.size(); ++i) {
    const Job& job = job_of(steps[i]);
    if (job.rows && job.cols) add_step(steps[i], i, shares, terms);
  }
  Table table;
  const size_t terms_offset = append(table.bytes, terms);
  for (size_t k = 0; k < kStepKernels; ++k) {
    if (shares[k].rows.empty()) continue;
    for (const StepRow& row : shares[k].rows) add_data(row, table.data);
    table.launches.push_back({.kernel = kKernels[k].name,
                              .threads = kThreads,
                              .shared_nbytes = kKernels[k].shared_nbytes,
                              .tiles = static_cast<uint32_t>(shares[k].tiles),
                              .rows = static_cast<uint32_t>(shares[k].rows.size()),
                              .rows_offset = append(table.bytes, shares[k].rows),
                              .terms_offset = terms_offset,
                              .takes = force ? Takes::forced_step : Takes::step});
  }
  return table;
}

}  // namespace lora_mmap::cuda
