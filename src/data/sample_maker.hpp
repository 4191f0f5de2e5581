#pragma once
#include <cstdint>
#include <vector>

#include "collimate/data/dataset.hpp"
#include "collimate/data/template.hpp"
#include "data/special_texts.hpp"

namespace collimate {

/// Turns the examples of one record or group into samples of a dataset. Where the template drops what is too long, there are none.
class SampleMaker {
 public:
  SampleMaker(const TemplateEncoder& encoder, SpecialTexts& special, std::int64_t text_window)
      : encoder_(encoder), special_(special), text_window_(text_window) {}
  std::vector<SupervisedSample> supervised(const Example& example, LengthCounts& counts) const;
  PreferenceGroup preference(const std::vector<Example>& examples, LengthCounts& counts) const;
  PromptSample prompt(const Example& example, LengthCounts& counts) const;

 private:
  std::vector<SupervisedSample> windows(const Example& example, LengthCounts& counts) const;
  std::vector<SupervisedSample> dialogue(const Example& example, LengthCounts& counts) const;
  bool fit_before(SupervisedSample& sample, std::size_t response, const Example& example, LengthCounts& counts) const;
  const TemplateEncoder& encoder_;
  SpecialTexts& special_;
  std::int64_t text_window_;
};

}  // namespace collimate
