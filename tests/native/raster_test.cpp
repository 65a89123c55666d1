// The native core by itself, on random atlases, texts, styles and pages. Built with AddressSanitizer and UBSan by test_sanitizers.py:
// what Python's tests cannot see is a byte read or written out of bounds, or arithmetic that is undefined.
#include <cstdio>
#include <cstdlib>
#include <random>

#include "page_painter.h"

using namespace glyph_rt;

namespace {

std::mt19937 random_bits;
long current_round = 0;

int64_t draw(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_bits); }

void check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "failed in round %ld: %s\n", current_round, what);
  std::exit(1);
}

Atlas random_atlas() {
  const auto phases = static_cast<int32_t>(draw(1, 4));
  const std::vector<uint32_t> symbols{' ', 'a', 'b', 'W', 0x4E2D, 0x3002, 0x300C, kNewlineMark, kShaped, kShaped + 1};
  std::vector<Fixed> advances;
  std::vector<uint8_t> inks, coverage;
  std::vector<GlyphBitmap> bitmaps;
  for (size_t i = 0; i < symbols.size(); ++i) {
    advances.push_back(draw(0, 12 * kOnePixel));
    inks.push_back(static_cast<uint8_t>(draw(0, 1)));
    for (int32_t p = 0; p < phases; ++p) {
      const auto width = static_cast<int32_t>(draw(0, 20)), height = static_cast<int32_t>(draw(0, 20));
      bitmaps.push_back({static_cast<int32_t>(draw(-30, 30)), static_cast<int32_t>(draw(-30, 30)), width, height,
                         static_cast<int64_t>(coverage.size()), 0, 0, 0});
      for (int32_t n = 0; n < width * height; ++n) coverage.push_back(static_cast<uint8_t>(draw(0, 255)));
    }
  }
  return Atlas(symbols, advances, inks, bitmaps, coverage, phases, 0, {6, 9});
}

struct Sample {
  std::vector<uint32_t> codepoints, symbols;
  std::vector<uint8_t> levels;
  std::vector<int64_t> breaks;

  Text text(size_t from = 0) const {
    return {codepoints.data() + from, symbols.data() + from, levels.empty() ? nullptr : levels.data() + from,
            static_cast<int64_t>(symbols.size() - from), breaks.data(), static_cast<int64_t>(breaks.size())};
  }
};

Sample random_sample(bool marks) {
  Sample sample;
  const std::vector<uint32_t> kinds{' ', ' ', 'a', 'b', 'W', 'z', 0x4E2D, 0x3002, 0x300C, '\n', '\t', kSkip, kFixedSpace, kShaped, kShaped + 1, '\r'};
  const int64_t length = draw(0, 600), variety = draw(3, static_cast<int64_t>(kinds.size()));
  for (int64_t i = 0; i < length; ++i) {
    uint32_t symbol = kinds[draw(0, variety - 1)];
    if (symbol == '\n' && marks) symbol = kNewlineMark;
    sample.symbols.push_back(symbol);
    sample.codepoints.push_back(symbol == kNewlineMark ? '\n' : symbol);
  }
  if (draw(0, 2) == 0)
    for (int64_t i = 0; i < length; ++i) sample.levels.push_back(static_cast<uint8_t>(draw(0, 3) | (draw(0, 1) << 7)));
  if (draw(0, 2) == 0)
    for (int64_t i = 0; i < length; ++i)
      if (draw(0, 40) == 0) sample.breaks.push_back(i);
  return sample;
}

Composition random_composition(bool marks) {
  Composition c{};
  c.trained = draw(0, 1);
  c.marks = marks;
  c.cjk = draw(0, 3) == 0;
  c.left = draw(0, 20) * kOnePixel;
  c.width = draw(0, 120) * kOnePixel;
  c.first_indent = draw(-5, 10) * kOnePixel;
  c.alignment = static_cast<Alignment>(draw(0, 3));
  c.tab_columns = static_cast<int32_t>(draw(1, 8));
  c.top = static_cast<double>(draw(0, 10));
  c.line_height = static_cast<double>(draw(1, 15));
  c.height = c.line_height * static_cast<double>(draw(1, 12));
  c.ascent = c.line_height * 0.8;
  c.space_before = static_cast<double>(draw(0, 9));
  c.space_after = static_cast<double>(draw(0, 9));
  c.scale = 1.0 + 0.1 * static_cast<double>(draw(0, 4));
  c.page_height = c.height + 2 * c.top;
  return c;
}

// Every line lies in the text, behind the one before, on the same page or the next.
void check_lines(const Composed& composed, int64_t length) {
  int64_t end = 0, page = 0;
  for (const Line& line : composed.lines) {
    check(line.start >= end && line.end >= line.start && line.end <= length, "lines are spans of the text, in order");
    check(line.page == page || line.page == page + 1, "pages follow each other");
    end = line.end;
    page = line.page;
  }
  check(composed.pages > page || composed.lines.empty(), "every page is counted");
}

void paint(const Pen& pen, const Sample& sample, const Composed& composed) {
  Look look{};
  look.width = static_cast<int32_t>(draw(1, 150));
  look.height = static_cast<int32_t>(draw(1, 150));
  look.scaled_width = draw(0, 1) ? look.width : static_cast<int32_t>(draw(1, 150));
  look.line_height = static_cast<int32_t>(draw(1, 15));
  look.ascent = static_cast<int32_t>(draw(0, 12));
  look.box_left = static_cast<int32_t>(draw(-10, 160));
  look.box_right = static_cast<int32_t>(draw(-10, 160));
  look.box_padding = static_cast<int32_t>(draw(0, 9));
  look.border_width = static_cast<int32_t>(draw(0, 4));
  look.boxes = draw(0, 1);
  if (draw(0, 1)) look.text[0] = {255, 10, 0};
  const PagePainter painter(look);
  Crop crop{static_cast<int32_t>(draw(1, look.scaled_width)), static_cast<int32_t>(draw(1, look.height)), 0, 0};
  crop.out_width = static_cast<int32_t>(draw(1, 5)) * kBlock;
  crop.out_height = static_cast<int32_t>(draw(1, 5)) * kBlock;
  // Exactly as many bytes as the encoder gets, so that one byte too many is seen.
  std::vector<uint8_t> patches(static_cast<size_t>(crop.out_width) * crop.out_height * painter.planes());
  size_t first = 0;
  while (first < composed.lines.size()) {
    size_t last = first;
    while (last < composed.lines.size() && composed.lines[last].page == composed.lines[first].page) ++last;
    painter.paint(pen, sample.text(), composed.lines.data() + first, static_cast<int64_t>(last - first), crop, patches.data());
    first = last;
  }
}

// Going on from where a call stopped gives what one call would have given.
void check_restart(const Pen& pen, const Sample& sample, const Composition& c, const Composed& whole) {
  if (!sample.breaks.empty() || whole.pages < 2) return;
  const Composed part = compose(pen, sample.text(), c, Carry{}, false);
  check(part.pages <= whole.pages, "an incomplete text has no more pages");
  for (size_t i = 0; i < part.lines.size(); ++i)
    check(part.lines[i].start == whole.lines[i].start && part.lines[i].end == whole.lines[i].end && part.lines[i].x == whole.lines[i].x &&
              part.lines[i].baseline == whole.lines[i].baseline,
          "complete pages do not depend on what follows");
  if (part.pages == 0) return;
  const Composed rest = compose(pen, sample.text(static_cast<size_t>(part.next)), c, part.carry, true);
  check(part.pages + rest.pages == whole.pages, "the rest has the rest of the pages");
  check(part.lines.size() + rest.lines.size() == whole.lines.size(), "and of the lines");
  for (size_t i = 0; i < rest.lines.size(); ++i)
    check(rest.lines[i].start + part.next == whole.lines[part.lines.size() + i].start &&
              rest.lines[i].baseline == whole.lines[part.lines.size() + i].baseline,
          "at the same places");
}

// Every version of the inner loops gives what the plain one gives.
void check_resampling() {
  Plane in;
  in.shape(static_cast<int32_t>(draw(1, 90)), static_cast<int32_t>(draw(1, 90)));
  const bool blank = draw(0, 3) == 0;
  for (auto& pixel : in.pixels) pixel = static_cast<uint8_t>(blank ? 0 : draw(0, 255));
  const auto width = static_cast<int32_t>(draw(1, in.width)), height = static_cast<int32_t>(draw(1, in.height));
  const auto to_width = static_cast<int32_t>(draw(1, 120)), to_height = static_cast<int32_t>(draw(1, 120));
  size_t count = 0;
  const RowLoops* const* all = all_row_loops(count);
  std::vector<std::vector<uint8_t>> results;
  for (size_t version = 0; version < count; ++version) {
    Resampler resampler(*all[version]);
    resampler.start(in, width, height, to_width, to_height);
    results.emplace_back();
    for (int32_t y = 0; y < to_height; ++y) {
      const uint8_t* row = resampler.row(y);
      results.back().insert(results.back().end(), row, row + to_width);
    }
  }
  for (const auto& result : results) check(result == results.back(), "all instruction sets resample alike");
}

void check_blending() {
  const auto stride = static_cast<int32_t>(draw(1, 3)) * kLanes, height = static_cast<int32_t>(draw(0, 9));
  const auto ink = static_cast<uint8_t>(draw(0, 255));
  std::vector<uint8_t> page(static_cast<size_t>(stride + 5) * height), coverage(static_cast<size_t>(stride) * height);
  for (auto& pixel : page) pixel = static_cast<uint8_t>(draw(0, 255));
  for (auto& alpha : coverage) alpha = static_cast<uint8_t>(draw(0, 255));
  std::vector<uint8_t> wanted = page;
  for (int32_t y = 0; y < height; ++y)
    for (int32_t x = 0; x < stride; ++x) {
      const double alpha = coverage[y * stride + x] / 255.0;
      uint8_t& pixel = wanted[y * (stride + 5) + x];
      pixel = static_cast<uint8_t>(std::lround(alpha * ink + (1 - alpha) * pixel));
    }
  size_t count = 0;
  const RowLoops* const* all = all_row_loops(count);
  for (size_t version = 0; version < count; ++version) {
    std::vector<uint8_t> drawn = page;
    all[version]->blend(drawn.data(), stride + 5, coverage.data(), stride, height, ink);
    check(drawn == wanted, "all instruction sets blend as real numbers do");
  }
}

}  // namespace

int main(int count, char** arguments) {
  const long rounds = count > 1 ? std::atol(arguments[1]) : 2000;
  for (long round = 0; round < rounds; ++round) {
    current_round = round;
    random_bits.seed(static_cast<uint32_t>(round));
    const Atlas atlas = random_atlas();
    const bool marks = draw(0, 3) == 0;
    const Sample sample = random_sample(marks);
    const Composition c = random_composition(marks);
    const Pen pen(atlas, c.tab_columns);
    const Composed composed = compose(pen, sample.text(), c, Carry{}, true);
    check_lines(composed, static_cast<int64_t>(sample.symbols.size()));
    check_restart(pen, sample, c, composed);
    paint(pen, sample, composed);
    check_resampling();
    check_blending();
  }
  std::printf("%ld rounds\n", rounds);
}
