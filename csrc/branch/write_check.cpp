#include "branch/write_check.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "branch/tile_layout.h"

namespace lora_mmap {
namespace {

class WriteCheck {
 public:
  WriteCheck(size_t index, const FactorWrite& write) : index_(index), write_(write) {}

  void check() const {
    check_range("features", write_.features);
    check_range("ranks", write_.ranks);
    const DType dtype = write_.dtype;
    if (dtype != DType::F16 && dtype != DType::BF16 && dtype != DType::F32)
      refuse("a branch of type " + name(dtype) + ", expected F16, BF16 or F32");
    if (!write_.zeros && !is_factor_dtype(write_.factor_dtype))
      refuse("a factor of type " + name(write_.factor_dtype));
    if (write_.is_empty()) return;
    if (!write_.branch) refuse("the branch is a null pointer");
    if (!write_.zeros && !write_.factor) refuse("the factor is a null pointer");
    check_pitch("feature_pitch", write_.feature_pitch, write_.features);
    check_pitch("rank_pitch", write_.rank_pitch, write_.ranks);
    check_map();
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(Fault::argument, "[write_factors] job " + std::to_string(index_) + ": " + what);
  }

  static std::string name(DType dtype) { return std::string(dtype_name(dtype)); }

  void check_range(const char* what, const Extent& extent) const {
    if (extent.begin < 0 || extent.end < extent.begin)
      refuse(std::string(what) + " from " + std::to_string(extent.begin) + " to " +
             std::to_string(extent.end) + ", expected 0 <= begin <= end");
  }

  // Along one axis; two axes that cross each other are the caller's business.
  void check_pitch(const char* what, int64_t pitch, const Extent& extent) const {
    const bool plain = write_.layout == BranchLayout::plain;
    const bool has_two = plain ? extent.size() > 1 : extent.begin / kTile != (extent.end - 1) / kTile;
    const int64_t least = plain ? 1 : kTileElements;
    if (has_two && std::abs(pitch) < least)
      refuse(std::string(what) + " is " + std::to_string(pitch) + ", expected at least " +
             std::to_string(least) + " either way");
  }

  void check_map() const {
    if (!write_.feature_map) return;
    const int32_t* end = write_.feature_map + write_.features.size();
    const int32_t* bad = std::find_if(write_.feature_map, end, [](int32_t index) { return index < -1; });
    if (bad != end)
      refuse("entry " + std::to_string(bad - write_.feature_map) + " of the feature map is " +
             std::to_string(*bad) + ", expected -1 or more");
  }

  const size_t index_;
  const FactorWrite& write_;
};

}  // namespace

void check_writes(const std::vector<FactorWrite>& jobs) {
  for (size_t i = 0; i < jobs.size(); ++i) WriteCheck(i, jobs[i]).check();
}

}  // namespace lora_mmap
