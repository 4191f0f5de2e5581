#pragma once
#include <string>

#include "collimate/base/error.hpp"

namespace collimate::test {

/// The sentence with which an action is refused, or "accepted".
template <class Action>
std::string refusal(Action&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace collimate::test
