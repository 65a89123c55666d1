// The Python face of the native core. Arguments are checked here once; the loops behind run without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <tuple>

#include "page_painter.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace glyph_rt {
namespace {

template <typename T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Table = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using NewLines = nb::ndarray<nb::numpy, int64_t, nb::shape<-1, 9>>;
using NewPatches = nb::ndarray<nb::numpy, uint8_t, nb::shape<-1, -1>>;
using Levels = std::optional<Vector<uint8_t>>;
static_assert(sizeof(Line) == 9 * sizeof(int64_t));

template <typename T>
std::vector<T> copy(const Vector<T>& a) {
  return std::vector<T>(a.data(), a.data() + a.size());
}

void check_symbols(const uint32_t* symbols, size_t count) {
  if (count > INT32_MAX) throw std::invalid_argument("a call takes at most 2^31 - 1 symbols");
  uint32_t highest = 0;
  for (size_t i = 0; i < count; ++i) highest = std::max(highest, symbols[i]);
  if (highest >= kSymbols) throw std::invalid_argument("a symbol is past the last one");
}

const uint8_t* checked_levels(const Levels& levels, size_t length) {
  if (!levels) return nullptr;
  if (levels->size() != length) throw std::invalid_argument("one level per symbol");
  return levels->data();
}

Atlas make_atlas(Vector<uint32_t> symbols, Vector<int64_t> advances, Vector<uint8_t> inks, Table<int32_t> metrics,
                 Vector<int64_t> offsets, Vector<uint8_t> coverage, int32_t phases, int32_t missing, std::array<int32_t, 2> visible) {
  if (metrics.shape(1) != 4 || metrics.shape(0) != offsets.size())
    throw std::invalid_argument("metrics must be [bitmaps, 4]: left, top, width, height");
  std::vector<GlyphBitmap> bitmaps(offsets.size());
  for (size_t i = 0; i < bitmaps.size(); ++i)
    bitmaps[i] = {metrics(i, 0), metrics(i, 1), metrics(i, 2), metrics(i, 3), offsets(i), 0, 0, 0};
  return Atlas(copy(symbols), copy(advances), copy(inks), std::move(bitmaps), copy(coverage), phases, missing, visible);
}

std::tuple<NewLines, int64_t, int64_t, Carry> py_compose(const Atlas& atlas, Vector<uint32_t> codepoints, Vector<uint32_t> symbols,
                                                         Levels levels, Vector<int64_t> breaks, const Composition& composition,
                                                         const Carry& carry, bool complete) {
  check_symbols(symbols.data(), symbols.size());
  if (codepoints.size() != symbols.size()) throw std::invalid_argument("one symbol per code point");
  const Text text{codepoints.data(), symbols.data(), checked_levels(levels, symbols.size()), static_cast<int64_t>(symbols.size()),
                  breaks.data(), static_cast<int64_t>(breaks.size())};
  Composed composed;
  Line* data = nullptr;
  size_t count = 0;
  {
    nb::gil_scoped_release release;
    composed = compose(Pen(atlas, composition.tab_columns), text, composition, carry, complete);
    count = composed.lines.size();
    data = new Line[count];
    if (count) std::memcpy(data, composed.lines.data(), count * sizeof(Line));
  }
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<Line*>(p); });
  return {NewLines(data, {count, 9}, owner), composed.pages, composed.next, composed.carry};
}

std::tuple<NewPatches, bool> py_paint(const PagePainter& painter, const Atlas& atlas, Vector<uint32_t> symbols, Levels levels,
                                      Table<int64_t> lines, int32_t tab_columns, std::array<int32_t, 4> crop) {
  if (lines.shape(1) != 9) throw std::invalid_argument("lines must be [lines, 9]");
  for (size_t i = 0; i < lines.shape(0); ++i) {
    if (lines(i, 0) < 0 || lines(i, 1) < lines(i, 0) || lines(i, 1) > static_cast<int64_t>(symbols.size()))
      throw std::invalid_argument("a line lies outside the text");
    check_symbols(symbols.data() + lines(i, 0), static_cast<size_t>(lines(i, 1) - lines(i, 0)));
  }
  const auto [width, height, out_width, out_height] = crop;
  if (width < 1 || height < 1 || width > painter.look().scaled_width || height > painter.look().height)
    throw std::invalid_argument("the crop must lie on the page");
  if (out_width < kBlock || out_height < kBlock || out_width % kBlock || out_height % kBlock || out_width > 28672 || out_height > 28672)
    throw std::invalid_argument("the output must be multiples of 28 px, at most 28672");
  const size_t patches = static_cast<size_t>(out_width / kPatch) * (out_height / kPatch);
  auto* data = new uint8_t[patches * painter.planes() * kPatchBytes];
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
  bool grey = false;
  {
    nb::gil_scoped_release release;
    const Text text{nullptr, symbols.data(), checked_levels(levels, symbols.size()), static_cast<int64_t>(symbols.size()), nullptr, 0};
    grey = painter.paint(Pen(atlas, tab_columns), text, reinterpret_cast<const Line*>(lines.data()),
                         static_cast<int64_t>(lines.shape(0)), {width, height, out_width, out_height}, data);
  }
  return {NewPatches(data, {patches, static_cast<size_t>(grey ? 1 : 3) * kPatchBytes}, owner), grey};
}

NewPatches py_resample(Table<uint8_t> pixels, std::array<int32_t, 2> size) {
  const auto [to_width, to_height] = size;
  const auto height = static_cast<int32_t>(pixels.shape(0)), width = static_cast<int32_t>(pixels.shape(1));
  if (width < 1 || height < 1 || to_width < 1 || to_height < 1 || to_width > 28672 || to_height > 28672)
    throw std::invalid_argument("sides must be 1 to 28672 px");
  Plane in;
  in.shape(width, height);
  for (int32_t y = 0; y < height; ++y) std::memcpy(in.row(y), &pixels(y, 0), width);
  Resampler resampler;
  resampler.start(in, width, height, to_width, to_height);
  auto* data = new uint8_t[static_cast<size_t>(to_width) * to_height];
  for (int32_t y = 0; y < to_height; ++y) std::memcpy(data + static_cast<int64_t>(y) * to_width, resampler.row(y), to_width);
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
  return NewPatches(data, {static_cast<size_t>(to_height), static_cast<size_t>(to_width)}, owner);
}

}  // namespace
}  // namespace glyph_rt

NB_MODULE(_raster, m) {
  using namespace glyph_rt;
  // At exit Python never clears the globals of user modules; an atlas held by one is no leak.
  nb::set_leak_warnings(false);
  m.doc() = "Native core of the typesetter: line breaking, composition of pages, and painting into encoder-ordered patches.";
  m.attr("SKIP") = kSkip;
  m.attr("FIXED_SPACE") = kFixedSpace;
  m.attr("NEWLINE_MARK") = kNewlineMark;
  m.attr("SHAPED") = kShaped;
  m.attr("SYMBOLS") = kSymbols;

  nb::class_<Atlas>(m, "Atlas", "Coverage bitmaps of a style's glyphs; immutable.")
      .def(
          "__init__",
          [](Atlas* self, Vector<uint32_t> symbols, Vector<int64_t> advances, Vector<uint8_t> inks, Table<int32_t> metrics,
             Vector<int64_t> offsets, Vector<uint8_t> coverage, int32_t phases, int32_t missing, std::array<int32_t, 2> visible) {
            new (self) Atlas(make_atlas(symbols, advances, inks, metrics, offsets, coverage, phases, missing, visible));
          },
          "symbols"_a, "advances"_a, "inks"_a, "metrics"_a, "offsets"_a, "coverage"_a, "phases"_a, "missing"_a,
          "visible"_a,
          "Glyph i draws symbols[i] in ink inks[i] and advances the pen by advances[i] (px times 2^32). metrics is "
          "[glyphs * phases, 4]: left, top, width, height in px; offsets point into coverage. visible[ink] is the least coverage that counts as ink where pages are cropped.");

  nb::class_<Composition>(m, "Composition", "How lines are broken and placed; lengths as in lines.h.")
      .def(
          "__init__",
          [](Composition* self, bool trained, bool marks, bool cjk, int64_t left, int64_t width, int64_t first_indent, int32_t alignment,
             int32_t tab_columns, double top, double height, double line_height, double ascent, double space_before,
             double space_after, double scale, double page_height) {
            if (alignment < 0 || alignment > 3 || tab_columns < 1 || !(line_height > 0) || !(height >= line_height) || width < 0)
              throw std::invalid_argument("no line can be placed this way");
            new (self) Composition{trained, marks, cjk, left, width, first_indent, static_cast<Alignment>(alignment), tab_columns, top, height,
                                   line_height, ascent, space_before, space_after, scale, page_height};
          },
          nb::kw_only(), "trained"_a, "marks"_a, "cjk"_a, "left"_a, "width"_a, "first_indent"_a, "alignment"_a, "tab_columns"_a, "top"_a,
          "height"_a, "line_height"_a, "ascent"_a, "space_before"_a, "space_after"_a, "scale"_a, "page_height"_a);

  nb::class_<Carry>(m, "Carry", "What is known at the start of a page; opaque, passed from one call of compose to the next.").def(nb::init<>());

  nb::class_<PagePainter>(m, "PagePainter", "Paints pages of one look as ink patches in merge-block order; immutable.")
      .def(
          "__init__",
          [](PagePainter* self, int32_t width, int32_t height, int32_t scaled_width, int32_t line_height, int32_t ascent,
             std::array<int32_t, 2> box, int32_t box_padding, int32_t border_width, bool boxes,
             std::array<Ink, 5> inks) {
            new (self) PagePainter({width, height, scaled_width, line_height, ascent, box[0], box[1], box_padding,
                                    border_width, boxes, inks[0], inks[1], inks[2], {inks[3], inks[4]}});
          },
          nb::kw_only(), "width"_a, "height"_a, "scaled_width"_a, "line_height"_a, "ascent"_a, "box"_a, "box_padding"_a,
          "border_width"_a, "boxes"_a, "inks"_a,
          "Lengths in px. inks: 255 minus red, green and blue of the page, of a paragraph's box, its border, the text, newline marks.")
      .def("paint", &py_paint, "atlas"_a, "symbols"_a, "levels"_a.none(), "lines"_a, "tab_columns"_a, "crop"_a,
           "Symbols [n] and the lines of one page [lines, 9] to patches uint8 [patches, 196], or [patches, 588] when the page has colour. "
           "crop: width and height of what is kept of the page, and the size it is scaled to. Releases the GIL.");

  m.def("compose", &py_compose, "atlas"_a, "codepoints"_a, "symbols"_a, "levels"_a.none(), "breaks"_a, "composition"_a, "carry"_a, "complete"_a,
        "Lines of the pages that start in this stretch of the text and are complete: int64 [lines, 9] with the columns of Line in "
        "lines.h, the number of pages, where the next page starts, and the carry to go on with there. Releases the GIL.");

  m.def("resample", &py_resample, "pixels"_a, "size"_a, "uint8 [height, width] to size (width, height), as Pillow's BICUBIC does.");
}
