#pragma once
#include "collimate/device/memory_plan.hpp"
#include "collimate/model/transformer.hpp"
#include "collimate/params/store.hpp"

namespace collimate {

/// A model's frozen parameters and its adapters in host memory; nothing is computed with them.
class AdapterModel {
 public:
  AdapterModel(const ModelConfig& config, Head head, int shards, const LoraConfig& lora)
      : device_(make_device()),
        plan_(*device_),
        transformer_(config, head, division(shards), plan_, {}, lora, 1),
        base_("base", transformer_.layout(), plan_, division(shards), {.windows = &no_windows_}),
        adapters_("adapters", transformer_.adapter_layout(), plan_, division(shards), {.windows = &no_windows_}) {
    plan_.commit();
    base_.clear();
    adapters_.clear();
  }
  ParameterStore& base() { return base_; }
  ParameterStore& adapters() { return adapters_; }

 private:
  static Division division(int shards) { return {.shards = shards, .host = {.values = 1}}; }
  std::unique_ptr<Device> device_;
  MemoryPlan plan_;
  Windows no_windows_{plan_, ""};  // nothing is fetched
  Transformer transformer_;
  ParameterStore base_, adapters_;
};

}  // namespace collimate
