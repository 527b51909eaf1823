#include "base/fault_points.h"

namespace lora_mmap {

std::optional<FaultPoint> fault_point_from_name(std::string_view name) {
  if (name == "encode") return FaultPoint::encode;
  if (name == "tile") return FaultPoint::tile;
  if (name == "fit") return FaultPoint::fit;
  return std::nullopt;
}

}  // namespace lora_mmap
