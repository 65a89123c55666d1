// The Python face of the native core. Arguments are checked here once; the loops behind run without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstring>
#include <stdexcept>

#include "page_painter.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace glyph_rt {
namespace {

template <typename T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Table = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using NewLines = nb::ndarray<nb::numpy, int32_t, nb::shape<-1, 2>>;
using NewPages = nb::ndarray<nb::numpy, uint8_t, nb::shape<-1, -1, kPatchBytes>>;

template <typename T>
std::vector<T> copy(const Vector<T>& a) {
  return std::vector<T>(a.data(), a.data() + a.size());
}

Atlas make_atlas(Vector<uint32_t> codepoints, Vector<int32_t> advances, Table<int32_t> metrics,
                 Vector<int64_t> offsets, Vector<uint8_t> coverage, int32_t phases, int32_t missing) {
  if (metrics.shape(1) != 4 || metrics.shape(0) != offsets.size())
    throw std::invalid_argument("metrics must be [bitmaps, 4]: left, top, width, height");
  std::vector<GlyphBitmap> bitmaps(offsets.size());
  for (size_t i = 0; i < bitmaps.size(); ++i)
    bitmaps[i] = {metrics(i, 0), metrics(i, 1), metrics(i, 2), metrics(i, 3), offsets(i)};
  return Atlas(copy(codepoints), copy(advances), std::move(bitmaps), copy(coverage), phases, missing);
}

int32_t checked_length(const Vector<uint32_t>& text) {
  if (text.size() > INT32_MAX) throw std::invalid_argument("a text holds at most 2^31 - 1 code points");
  return static_cast<int32_t>(text.size());
}

int32_t checked_tab(int32_t tab_columns) {
  if (tab_columns < 1) throw std::invalid_argument("tab columns must be at least 1");
  return tab_columns;
}

NewLines py_break_lines(const Atlas& atlas, Vector<uint32_t> text, int32_t width, int32_t tab_columns) {
  const int32_t length = checked_length(text);
  checked_tab(tab_columns);
  Line* data = nullptr;
  size_t count = 0;
  {
    nb::gil_scoped_release release;
    const std::vector<Line> lines = break_lines(Pen(atlas, tab_columns), text.data(), length, width);
    count = lines.size();
    data = new Line[count];
    if (count) std::memcpy(data, lines.data(), count * sizeof(Line));
  }
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<Line*>(p); });
  return NewLines(data, {count, 2}, owner);
}

NewPages py_paint(const PagePainter& painter, const Atlas& atlas, Vector<uint32_t> text, Table<int32_t> lines,
                  int32_t tab_columns) {
  static_assert(sizeof(Line) == 2 * sizeof(int32_t));
  const int32_t length = checked_length(text);
  checked_tab(tab_columns);
  if (lines.shape(1) != 2) throw std::invalid_argument("lines must be [lines, 2]: start, end");
  for (size_t i = 0; i < lines.shape(0); ++i)
    if (lines(i, 0) < 0 || lines(i, 1) < lines(i, 0) || lines(i, 1) > length)
      throw std::invalid_argument("a line lies outside the text");
  const int64_t rows = painter.rows();
  if (rows < 1) throw std::invalid_argument("no line fits on the page");
  const int64_t count = static_cast<int64_t>(lines.shape(0));
  const int64_t pages = (count + rows - 1) / rows;
  auto* data = new uint8_t[pages * painter.page_bytes()]();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
  {
    nb::gil_scoped_release release;
    const Pen pen(atlas, tab_columns);
    const auto* all = reinterpret_cast<const Line*>(lines.data());
    for (int64_t p = 0; p < pages; ++p)
      painter.paint(atlas, pen, text.data(), all + p * rows, static_cast<int32_t>(std::min(rows, count - p * rows)),
                    data + p * painter.page_bytes());
  }
  return NewPages(data, {static_cast<size_t>(pages), static_cast<size_t>(painter.page_bytes() / kPatchBytes), kPatchBytes},
                  owner);
}

}  // namespace
}  // namespace glyph_rt

NB_MODULE(_raster, m) {
  using namespace glyph_rt;
  // At exit Python never clears the globals of user modules; an atlas held by one is no leak.
  nb::set_leak_warnings(false);
  m.doc() = "Native core of the typesetter: line breaking and glyph blitting into encoder-ordered patches.";

  nb::class_<Atlas>(m, "Atlas", "Coverage bitmaps of one font at one size; immutable.")
      .def(
          "__init__",
          [](Atlas* self, Vector<uint32_t> codepoints, Vector<int32_t> advances, Table<int32_t> metrics,
             Vector<int64_t> offsets, Vector<uint8_t> coverage, int32_t phases, int32_t missing) {
            new (self) Atlas(make_atlas(codepoints, advances, metrics, offsets, coverage, phases, missing));
          },
          "codepoints"_a, "advances"_a, "metrics"_a, "offsets"_a, "coverage"_a, "phases"_a, "missing"_a,
          "Glyph i draws codepoints[i] and advances the pen by advances[i] (26.6 px). metrics is [glyphs * phases, 4]: "
          "left, top, width, height in px; offsets point into coverage.");

  nb::class_<PagePainter>(m, "PagePainter", "Paints pages of one geometry as ink patches in merge-block order.")
      .def(
          "__init__",
          [](PagePainter* self, int32_t width, int32_t height, int32_t margin_x, int32_t margin_y, int32_t line_height,
             int32_t first_baseline) {
            new (self) PagePainter({width, height, margin_x, margin_y, line_height, first_baseline});
          },
          "width"_a, "height"_a, "margin_x"_a, "margin_y"_a, "line_height"_a, "first_baseline"_a,
          "All in px; width and height are multiples of 28.")
      .def_prop_ro("rows", &PagePainter::rows, "Lines that fit on a page.")
      .def("paint", &py_paint, "atlas"_a, "text"_a, "lines"_a, "tab_columns"_a,
           "Code points [n] and line spans [lines, 2] to ink [pages, patches, 196]. Releases the GIL.");

  m.def("has_ink", &has_ink, "codepoint"_a, "Whether a glyph is needed to draw this code point: not for spaces and line breaks.");

  m.def("break_lines", &py_break_lines, "atlas"_a, "text"_a, "width"_a, "tab_columns"_a,
        "Code points [n] to line spans [lines, 2] for lines of `width` (26.6 px). Releases the GIL.");
}
