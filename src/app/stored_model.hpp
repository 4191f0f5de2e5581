#pragma once
#include "collimate/device/memory_plan.hpp"
#include "collimate/model/transformer.hpp"
#include "collimate/params/store.hpp"

namespace collimate {

/// The weights of one model in host memory, to be filled or read; nothing is computed with them, and no room on a device is needed.
class StoredModel {
 public:
  StoredModel(const ModelConfig& config, Head head, int shards, const MemoryCaps& caps = {})
      : device_(make_device()),
        plan_(*device_),
        transformer_(config, head, division(shards), plan_, {}, {}, 1),
        store_("model", transformer_.layout(), plan_, division(shards), {.windows = &no_windows_}) {
    plan_.commit(caps);
    store_.clear();
  }
  ParameterStore& store() { return store_; }

 private:
  static Division division(int shards) { return {.shards = shards, .host = {.values = 1}}; }
  std::unique_ptr<Device> device_;
  MemoryPlan plan_;
  Windows no_windows_{plan_, ""};  // nothing is fetched
  Transformer transformer_;
  ParameterStore store_;
};

}  // namespace collimate
