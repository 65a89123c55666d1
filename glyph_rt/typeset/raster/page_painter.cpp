#include "page_painter.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace glyph_rt {

namespace {

bool is_grey(const Ink& ink) { return ink[0] == ink[1] && ink[1] == ink[2]; }

// round(alpha * ink / 255 + (1 - alpha / 255) * under): exact in 16 bits, since no quotient by 255 ends in one half.
inline uint8_t blended(uint8_t under, uint8_t alpha, uint8_t ink) {
  const auto sum = static_cast<uint16_t>(alpha * ink + (255 - alpha) * under + 128);
  return static_cast<uint8_t>((sum + (sum >> 8)) >> 8);
}

// kLanes pixels at once.
inline void blend_lanes(uint8_t* to, const uint8_t* alpha, uint8_t ink) {
#ifdef __SSE2__
  const __m128i zero = _mm_setzero_si128();
  const auto load = [&](const uint8_t* from) { return _mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)), zero); };
  const __m128i a = load(alpha);
  const __m128i over = _mm_mullo_epi16(a, _mm_set1_epi16(ink));
  const __m128i under = _mm_mullo_epi16(_mm_sub_epi16(_mm_set1_epi16(255), a), load(to));
  const __m128i sum = _mm_add_epi16(_mm_add_epi16(over, under), _mm_set1_epi16(128));
  const __m128i level = _mm_srli_epi16(_mm_add_epi16(sum, _mm_srli_epi16(sum, 8)), 8);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(level, zero));
#else
  for (int32_t i = 0; i < kLanes; ++i) to[i] = blended(to[i], alpha[i], ink);
#endif
}

bool equal(const Plane& a, const Plane& b, const Crop& crop) {
  for (int32_t y = 0; y < crop.out_height; ++y)
    if (std::memcmp(a.row(y), b.row(y), crop.out_width) != 0) return false;
  return true;
}

// The left upper width x height px of a plane to patches: `stride` bytes from one patch to the next.
void to_patches(const Plane& in, int32_t width, int32_t height, uint8_t* out, int64_t stride) {
  const int32_t blocks = width / kBlock;
  for (int32_t y = 0; y < height; ++y) {
    const uint8_t* row = in.row(y);
    const int64_t first = (static_cast<int64_t>(y / kBlock) * blocks * kMerge + y / kPatch % kMerge) * kMerge;
    for (int32_t b = 0; b < blocks; ++b)
      for (int32_t m = 0; m < kMerge; ++m)
        std::memcpy(out + (first + static_cast<int64_t>(b) * kMerge * kMerge + m) * stride + (y % kPatch) * kPatch,
                    row + b * kBlock + m * kPatch, kPatch);
  }
}

}  // namespace

// Planes of a page while it is drawn; kept per thread, so that drawing a page allocates nothing.
struct PagePainter::Canvas {
  std::array<Plane, 3> planes;
  Plane scratch, scaled, out[3];
  std::vector<int32_t> order;
};

PagePainter::PagePainter(const Look& look) : look_(look) {
  const auto bad = [](int32_t px) { return px <= 0 || px > 28 * 1024; };
  if (bad(look.width) || bad(look.height) || bad(look.scaled_width)) throw std::invalid_argument("a page is 1 to 28672 px wide and high");
  const bool grey = is_grey(look.page) && is_grey(look.paragraph) && is_grey(look.border) && is_grey(look.text[0]) && is_grey(look.text[1]);
  planes_ = grey ? 1 : 3;
}

bool PagePainter::paint(const Pen& pen, const Text& text, const Line* lines, int64_t count, const Crop& crop, uint8_t* out) const {
  thread_local Canvas canvas;
  for (int32_t p = 0; p < planes_; ++p) {
    canvas.planes[p].shape(look_.width, look_.height);
    std::memset(canvas.planes[p].pixels.data(), look_.page[p], canvas.planes[p].pixels.size());
  }
  for (int64_t i = 0; i < count; ++i) {
    // Box and text of one paragraph after the other: a box may cover what hangs down from the paragraph above, as in the chain.
    if (look_.boxes && (lines[i].paragraph & 1)) draw_boxes(canvas, lines, count, i);
    draw_line(canvas, pen, text, lines[i]);
  }
  std::array<const Plane*, 3> done{};
  for (int32_t p = 0; p < planes_; ++p) {
    const Plane* plane = &canvas.planes[p];
    if (look_.scaled_width != look_.width) {
      resample(*plane, look_.width, look_.height, look_.scaled_width, look_.height, canvas.scratch, canvas.scaled);
      std::swap(canvas.planes[p], canvas.scaled);
    }
    if (crop.width != crop.out_width || crop.height != crop.out_height) {
      resample(*plane, crop.width, crop.height, crop.out_width, crop.out_height, canvas.scratch, canvas.out[p]);
      plane = &canvas.out[p];
    }
    done[p] = plane;
  }
  const bool grey = planes_ == 1 || (equal(*done[0], *done[1], crop) && equal(*done[1], *done[2], crop));
  const int64_t stride = grey ? kPatchBytes : 3 * kPatchBytes;
  for (int32_t p = 0; p < (grey ? 1 : planes_); ++p) to_patches(*done[p], crop.out_width, crop.out_height, out + p * kPatchBytes, stride);
  return grey;
}

void PagePainter::draw_boxes(Canvas& canvas, const Line* lines, int64_t count, int64_t at) const {
  int64_t last = at;
  while (last + 1 < count && !(lines[last].paragraph & 2)) ++last;
  const auto top = static_cast<int32_t>(lines[at].baseline) - look_.ascent - look_.box_padding;
  const auto bottom = static_cast<int32_t>(lines[last].baseline) - look_.ascent + look_.line_height + look_.box_padding;
  const int32_t left = look_.box_left - look_.box_padding, right = look_.box_right + look_.box_padding, w = look_.border_width;
  fill(canvas, left, top, right, bottom, look_.paragraph);
  if (w > 0) {  // centred on the edge, as PDF strokes are
    const int32_t out = w / 2, in = w - out;
    fill(canvas, left - out, top - out, right + out, top + in, look_.border);
    fill(canvas, left - out, bottom - in, right + out, bottom + out, look_.border);
    fill(canvas, left - out, top - out, left + in, bottom + out, look_.border);
    fill(canvas, right - in, top - out, right + out, bottom + out, look_.border);
  }
}

void PagePainter::draw_line(Canvas& canvas, const Pen& pen, const Text& text, const Line& line) const {
  const Atlas& atlas = pen.atlas();
  Walk walk(pen, line.stretch);
  const auto put = [&](int64_t i) {
    const uint32_t s = text.symbols[i];
    const Fixed at = line.x + walk.reach(s);
    if (has_ink(s)) {
      const int32_t glyph = atlas.glyph(s);
      blend(canvas, atlas, atlas.bitmap(glyph, at), floor_px(at), static_cast<int32_t>(line.baseline), look_.text[atlas.ink(glyph)]);
    }
    walk.pass(s);
  };
  if (text.levels == nullptr) {
    for (int64_t i = line.start; i < line.end; ++i) put(i);
  } else {
    visual_order(text, line.start, line.end, canvas.order);
    for (const int32_t i : canvas.order) put(i);
  }
}

void PagePainter::fill(Canvas& canvas, int32_t left, int32_t top, int32_t right, int32_t bottom, const Ink& ink) const {
  left = std::clamp(left, 0, look_.width);
  right = std::clamp(right, left, look_.width);
  for (int32_t y = std::max(0, top); y < std::min(bottom, look_.height); ++y)
    for (int32_t p = 0; p < planes_; ++p) std::memset(canvas.planes[p].row(y) + left, ink[p], right - left);
}

void PagePainter::blend(Canvas& canvas, const Atlas& atlas, const GlyphBitmap& bitmap, int32_t x, int32_t baseline, const Ink& ink) const {
  const uint8_t* coverage = atlas.coverage(bitmap);
  const int32_t x0 = x + bitmap.left, y0 = baseline - bitmap.top;
  const int32_t first_column = std::max(0, -x0), last_column = std::min(bitmap.width, look_.width - x0);
  const int32_t first_row = std::max(0, -y0), last_row = std::min(bitmap.height, look_.height - y0);
  for (int32_t p = 0; p < planes_; ++p) {
    const uint8_t level = ink[p];  // a copy, which pixels written below cannot alias
    for (int32_t r = first_row; r < last_row; ++r) {
      const uint8_t* from = coverage + static_cast<int64_t>(r) * bitmap.stride;
      uint8_t* to = canvas.planes[p].row(y0 + r) + x0;
      if (first_column == 0 && last_column == bitmap.width) {  // whole vectors may run over into the slack behind the row
        for (int32_t c = 0; c < bitmap.stride; c += kLanes) blend_lanes(to + c, from + c, level);
      } else {
        for (int32_t c = first_column; c < last_column; ++c) to[c] = blended(to[c], from[c], level);
      }
    }
  }
}

}  // namespace glyph_rt
