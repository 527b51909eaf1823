#include "safetensors/header_parser.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "safetensors/header_rules.h"
#include "safetensors/utf8.h"
#include "safetensors/violation.h"

namespace lora_mmap::safetensors {
namespace {

// A typical entry: {"name of 40 to 80 bytes":{"dtype":"BF16","shape":[16,3072],"data_offsets":[0,98304]}}
constexpr uint64_t kTypicalEntryNbytes = 100;

bool before(const Tensor& a, const Tensor& b) {
  return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
}

void require_utf8(std::string_view text) {
  const size_t valid = valid_utf8_prefix(text);
  if (valid != text.size())
    throw Violation{"invalid UTF-8 in header: invalid sequence at byte " + std::to_string(valid), {}};
}

}  // namespace

HeaderParser::HeaderParser(std::unique_ptr<char[]> json, uint64_t json_nbytes)
    : cursor_(json.get(), json.get() + json_nbytes) {
  header_.json_ = std::move(json);
  header_.nbytes_ = kLengthFieldNbytes + json_nbytes;
  const uint64_t likely_tensors = json_nbytes / kTypicalEntryNbytes;
  header_.tensors_.reserve(likely_tensors);
  header_.dims_.reserve(2 * likely_tensors);
  header_.places_ = NameTable(likely_tensors);
}

Header HeaderParser::parse(std::unique_ptr<char[]> json, uint64_t json_nbytes, uint64_t file_nbytes) {
  require_utf8({json.get(), json_nbytes});
  HeaderParser parser(std::move(json), json_nbytes);
  try {
    parser.parse_document();
  } catch (const JsonError& error) {
    std::string where;
    if (parser.current_.data()) where = "tensor `" + std::string(parser.current_) + "`";
    throw Violation{std::string("invalid JSON in header: ") + error.what(), std::move(where)};
  }
  parser.sort_by_offset();
  check_tiling(parser.header_, file_nbytes - parser.header_.nbytes());
  return std::move(parser.header_);
}

void HeaderParser::parse_document() {
  bool seen_metadata = false;
  std::string_view name;
  cursor_.begin_object();
  while (cursor_.next_member(name)) {
    if (name != "__metadata__") {
      parse_tensor(name);
    } else {
      if (std::exchange(seen_metadata, true)) cursor_.fail("duplicate field `__metadata__`");
      parse_metadata();
    }
  }
  cursor_.finish();
}

void HeaderParser::parse_metadata() {
  if (cursor_.peek() == 'n') return cursor_.null();
  Header::Metadata& metadata = header_.metadata_.emplace();
  NameTable places;
  const auto key_at = [&](uint32_t place) { return metadata[place].first; };
  std::string_view key;
  cursor_.begin_object();
  while (cursor_.next_member(key)) {
    const std::string_view value = cursor_.string();
    const auto next = static_cast<uint32_t>(metadata.size());
    const uint32_t place = places.find_or_insert(key, next, key_at);
    if (place == next)
      metadata.emplace_back(key, value);
    else
      metadata[place].second = value;
  }
}

void HeaderParser::parse_tensor(std::string_view name) {
  current_ = name;
  Tensor tensor;
  tensor.name = name;
  if (cursor_.peek() == '[')
    parse_tensor_list(tensor);
  else
    parse_tensor_object(tensor);
  keep(tensor);
  current_ = {};
}

void HeaderParser::parse_tensor_object(Tensor& tensor) {
  enum : unsigned { kDtype = 1, kShape = 2, kOffsets = 4 };
  unsigned seen = 0;
  const auto first_time = [&](unsigned field, const char* name) {
    if (seen & field) cursor_.fail(std::string("duplicate field `") + name + "`");
    seen |= field;
  };
  std::string_view field;
  cursor_.begin_object();
  while (cursor_.next_member(field)) {
    if (field == "dtype") {
      first_time(kDtype, "dtype");
      tensor.dtype = parse_dtype();
    } else if (field == "shape") {
      first_time(kShape, "shape");
      parse_shape(tensor);
    } else if (field == "data_offsets") {
      first_time(kOffsets, "data_offsets");
      parse_offsets(tensor);
    } else {
      cursor_.skip_value();
    }
  }
  if (!(seen & kDtype)) cursor_.fail("missing field `dtype`");
  if (!(seen & kShape)) cursor_.fail("missing field `shape`");
  if (!(seen & kOffsets)) cursor_.fail("missing field `data_offsets`");
}

// The form ["F32", [2, 2], [0, 16]], which safetensors reads as well.
void HeaderParser::parse_tensor_list(Tensor& tensor) {
  const auto require = [&](bool more) {
    if (!more) cursor_.fail("expected [dtype, shape, data_offsets]");
  };
  cursor_.begin_array();
  require(cursor_.next_element());
  tensor.dtype = parse_dtype();
  require(cursor_.next_element());
  parse_shape(tensor);
  require(cursor_.next_element());
  parse_offsets(tensor);
  require(!cursor_.next_element());
}

// "F32", or {"F32": null}, which safetensors reads as well.
DType HeaderParser::parse_dtype() {
  std::string_view name;
  if (cursor_.peek() == '{') {
    cursor_.begin_object();
    if (!cursor_.next_member(name)) cursor_.fail("expected a data type");
    cursor_.null();
    std::string_view another;
    if (cursor_.next_member(another)) cursor_.fail("expected one data type");
  } else {
    name = cursor_.string();
  }
  const std::optional<DType> dtype = dtype_from_name(name);
  if (!dtype) cursor_.fail("unknown data type `" + std::string(name) + "`");
  return *dtype;
}

void HeaderParser::parse_shape(Tensor& tensor) {
  tensor.first_dim = static_cast<uint32_t>(header_.dims_.size());
  cursor_.begin_array();
  while (cursor_.next_element()) header_.dims_.push_back(cursor_.u64());
  tensor.rank = static_cast<uint32_t>(header_.dims_.size()) - tensor.first_dim;
}

void HeaderParser::parse_offsets(Tensor& tensor) {
  const auto require = [&](bool more) {
    if (!more) cursor_.fail("expected data_offsets of two numbers");
  };
  cursor_.begin_array();
  require(cursor_.next_element());
  tensor.begin = cursor_.u64();
  require(cursor_.next_element());
  tensor.end = cursor_.u64();
  require(!cursor_.next_element());
}

// A name that comes again replaces what it said before.
void HeaderParser::keep(const Tensor& tensor) {
  std::vector<Tensor>& tensors = header_.tensors_;
  const auto next = static_cast<uint32_t>(tensors.size());
  const uint32_t place =
      header_.places_.find_or_insert(tensor.name, next, [&](uint32_t at) { return tensors[at].name; });
  if (place == next)
    tensors.push_back(tensor);
  else
    tensors[place] = tensor;
}

void HeaderParser::sort_by_offset() {
  std::vector<Tensor>& tensors = header_.tensors_;
  if (std::is_sorted(tensors.begin(), tensors.end(), before)) return;
  std::vector<uint32_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return before(tensors[a], tensors[b]); });
  std::vector<Tensor> sorted;
  std::vector<uint32_t> new_places(tensors.size());
  sorted.reserve(tensors.size());
  for (const uint32_t old : order) {
    new_places[old] = static_cast<uint32_t>(sorted.size());
    sorted.push_back(tensors[old]);
  }
  tensors = std::move(sorted);
  header_.places_.move_places(new_places);
}

}  // namespace lora_mmap::safetensors
