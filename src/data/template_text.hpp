#pragma once
#include <functional>

#include "collimate/data/template.hpp"

namespace collimate {

/// Renders a template text. `{{` and `}}` are braces; a part in [[ ]] vanishes with an empty field in it.
TemplateText render(std::string_view text, const std::function<std::string(std::string_view field)>& lookup);

}  // namespace collimate
