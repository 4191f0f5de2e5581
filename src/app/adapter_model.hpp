#pragma once
#include "collimate/device/memory_plan.hpp"
#include "collimate/model/transformer.hpp"
#include "collimate/params/store.hpp"

namespace collimate {

/// A model's frozen parameters and its adapters in the memory of this process; nothing is computed with them.
class AdapterModel {
 public:
  AdapterModel(const ModelConfig& config, Head head, int shards, const LoraConfig& lora)
      : device_(make_device()),
        plan_(*device_),
        transformer_(config, head, Division{.shards = shards}, plan_, {}, lora),
        base_("base", transformer_.layout(), plan_, Division{.shards = shards}),
        adapters_("adapters", transformer_.adapter_layout(), plan_, Division{.shards = shards}) {
    plan_.commit();
    base_.clear();
    adapters_.clear();
  }
  ParameterStore& base() { return base_; }
  ParameterStore& adapters() { return adapters_; }

 private:
  std::unique_ptr<Device> device_;
  MemoryPlan plan_;
  Transformer transformer_;
  ParameterStore base_, adapters_;
};

}  // namespace collimate
