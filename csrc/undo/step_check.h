#pragma once

#include <vector>

#include "undo/step.h"

namespace lora_mmap {

// The job of a layer: its terms on the step's rectangle, the base being the layer's own values or the weight.
Job job_of(const Step& step, const Layer& layer);

// Throws Error(Fault::argument) if a step makes no sense.
void check_steps(const std::vector<Step>& steps);

}  // namespace lora_mmap
