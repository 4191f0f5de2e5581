#pragma once
#include "collimate/device/memory_plan.hpp"
#include "collimate/model/transformer.hpp"
#include "collimate/params/store.hpp"

namespace collimate {

/// The weights of one model in the memory of this process, to be filled or read; nothing is computed with them.
class StoredModel {
 public:
  StoredModel(const ModelConfig& config, Head head, int shards)
      : device_(make_device()),
        plan_(*device_),
        transformer_(config, head, Division{.shards = shards}, plan_),
        store_("model", transformer_.layout(), plan_, Division{.shards = shards}) {
    plan_.commit();
    store_.clear();
  }
  ParameterStore& store() { return store_; }

 private:
  std::unique_ptr<Device> device_;
  MemoryPlan plan_;
  Transformer transformer_;
  ParameterStore store_;
};

}  // namespace collimate
