#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "collimate/base/error.hpp"
#include "io/manifest.hpp"

namespace collimate {

namespace {

/// Rows [row, row_end) by columns [column, column_end) of a tensor that is seen as a table.
struct Rectangle {
  std::int64_t row, row_end, column, column_end;
};

/// A tensor as a table, and who it is in errors.
struct Table {
  const std::string& where;
  const std::string& name;
  std::int64_t rows, width;

  [[noreturn]] void lacks(std::int64_t first, std::int64_t end) const {
    fail("the checkpoint '{}' lacks elements {} to {} of the tensor {}", where, first, end - 1, name);
  }
  [[noreturn]] void holds_twice(std::int64_t first, std::int64_t end) const {
    fail("the checkpoint '{}' holds elements {} to {} of the tensor {} twice", where, first, end - 1, name);
  }
};

/// A box is one rectangle; a range is up to three: the rest of its first row, whole rows, the beginning of its last row.
void add_rectangles(const StoredPiece& piece, std::int64_t width, std::vector<Rectangle>& list) {
  const auto add = [&](std::int64_t begin, std::int64_t rows, std::int64_t columns) {
    list.push_back({begin / width, begin / width + rows, begin % width, begin % width + columns});
    return rows * columns;
  };
  if (piece.is_box()) {
    add(piece.begin, piece.count / piece.columns, piece.columns);
    return;
  }
  for (std::int64_t at = piece.begin; at < piece.end();) {
    const std::int64_t columns = std::min(width - at % width, piece.end() - at);
    at += add(at, columns < width ? 1 : (piece.end() - at) / width, columns);
  }
}

/// The rectangles of the row that a sweep over the rows has come to, by their first column; no two overlap.
class Row {
 public:
  explicit Row(const Table& table) : table_(table) {}

  void add(const Rectangle& next) {
    const auto after = columns_.lower_bound(next.column);
    const std::int64_t row_begin = next.row * table_.width;
    const auto check = [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t first = std::max(begin, next.column), last = std::min(end, next.column_end);
      if (first < last) table_.holds_twice(row_begin + first, row_begin + last);
    };
    if (after != columns_.begin()) check(std::prev(after)->first, std::prev(after)->second);
    if (after != columns_.end()) check(after->first, after->second);
    columns_.emplace_hint(after, next.column, next.column_end);
    covered_ += next.column_end - next.column;
  }

  void remove(const Rectangle& old) {
    columns_.erase(old.column);
    covered_ -= old.column_end - old.column;
  }

  /// Throws unless it is whole, as which it stays until `row_end`.
  void check_whole(std::int64_t row, std::int64_t row_end) const {
    if (covered_ == table_.width) return;
    if (covered_ == 0) table_.lacks(row * table_.width, row_end * table_.width);
    std::int64_t end = 0;
    for (const auto& [column, column_end] : columns_) {
      if (column > end) table_.lacks(row * table_.width + end, row * table_.width + column);
      end = column_end;
    }
    table_.lacks(row * table_.width + end, (row + 1) * table_.width);
  }

 private:
  const Table& table_;
  std::map<std::int64_t, std::int64_t> columns_;  ///< [first, second)
  std::int64_t covered_ = 0;
};

/// Goes from row border to row border with the rectangles that lie between: a time of P log P for P rectangles.
void check_covered_once(const Table& table, const std::vector<Rectangle>& rectangles) {
  struct Border {
    std::int64_t row;
    bool begins;  ///< after the ends of the same row
    const Rectangle* rectangle;
  };
  std::vector<Border> borders;
  for (const Rectangle& rectangle : rectangles) {
    borders.push_back({rectangle.row, true, &rectangle});
    borders.push_back({rectangle.row_end, false, &rectangle});
  }
  std::sort(borders.begin(), borders.end(), [](const Border& a, const Border& b) {
    return std::pair{a.row, a.begins} < std::pair{b.row, b.begins};
  });
  Row row(table);
  std::int64_t at = 0;
  for (const Border& border : borders) {
    if (border.row > at) row.check_whole(at, border.row);
    at = border.row;
    if (border.begins)
      row.add(*border.rectangle);
    else
      row.remove(*border.rectangle);
  }
  if (at < table.rows) row.check_whole(at, table.rows);
}

void check_tensor(const CheckpointTensor& tensor, const std::vector<const StoredPiece*>& pieces, const std::string& where) {
  const std::int64_t count = tensor.shape.count();
  const bool boxes = std::any_of(pieces.begin(), pieces.end(), [](const StoredPiece* piece) { return piece->is_box(); });
  const Table table{where, tensor.name, boxes ? tensor.shape[0] : std::int64_t{count > 0}, boxes ? tensor.shape[1] : count};
  std::vector<Rectangle> rectangles;
  for (const StoredPiece* piece : pieces) {
    require(piece->end() <= count && (!piece->is_box() || (tensor.shape.rank() == 2 && piece->stride == tensor.shape[1])),
            "the checkpoint '{}' holds elements {} to {} of the tensor {}, which do not fit its shape {}", where, piece->begin,
            piece->end() - 1, tensor.name, tensor.shape.text());
    add_rectangles(*piece, table.width, rectangles);
  }
  check_covered_once(table, rectangles);
}

}  // namespace

std::vector<CheckpointTensor> check_pieces(const std::vector<StoredPart>& parts, const std::string& where) {
  std::map<std::string, CheckpointTensor> tensors;
  std::map<std::string, std::vector<const StoredPiece*>> pieces;
  for (const StoredPart& part : parts) {
    for (const CheckpointTensor& tensor : part.tensors) {
      const CheckpointTensor& known = tensors.emplace(tensor.name, tensor).first->second;
      require(known == tensor, "the checkpoint '{}' holds the tensor {} both as {} {} and as {} {}", where, tensor.name,
              name_of(known.dtype), known.shape.text(), name_of(tensor.dtype), tensor.shape.text());
    }
    for (const StoredPiece& piece : part.pieces) pieces[piece.tensor].push_back(&piece);
  }
  std::vector<CheckpointTensor> merged;
  for (const auto& [name, tensor] : tensors) {
    check_tensor(tensor, pieces[name], where);
    merged.push_back(tensor);
  }
  return merged;
}

}  // namespace collimate
