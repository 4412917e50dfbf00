/*
 * The hot loops of a program's patch, for deltas/moves/native.ts: the search for references in x86-64 code
 * (x86-64.ts, x86-sweep.ts), AArch64's (aarch64.ts) and data (references.ts), and their prediction (prediction.ts, owners.ts, copier.ts).
 *
 * Invariants: the result is that of the TypeScript, bit for bit, whatever the bytes are; names and order are its own, to
 * be read side by side. So numbers are doubles here too, added in the same order, and never contracted (binding.gyp).
 * Nothing is kept, allocated or thrown within a loop; what is not done here is left, untouched, to the TypeScript.
 * Nothing in an array is believed: no index leaves its array, no number is cast that does not fit.
 */
#include <math.h>
#include <node_api.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SAFE_MAX 9007199254740991.0 /* Number.MAX_SAFE_INTEGER */
#define TWO32 4294967296.0
#define UNLOADED 281474976710656.0 /* elf.ts: 2 ** 48 */

/* references.ts: KIND, WIDTH. Those that are not here, Arm's and Go's, are left to the TypeScript. */
enum {
  KIND_RELATIVE32 = 0, KIND_RELATIVE8 = 1, KIND_ABSOLUTE32 = 2, KIND_ABSOLUTE64 = 3, KIND_OFFSET32 = 4, KIND_BRANCH26 = 5,
  KIND_BRANCH19 = 6, KIND_BRANCH14 = 7, KIND_PAGE21 = 8, KIND_NEAR21 = 9, KIND_LOW12 = 10, KIND_SELF32 = 12, KIND_BACKWARD32 = 13, KIND_LENGTH32 = 14, KIND_LENGTH64 = 15, KIND_INDEX32 = 16, KIND_TABLE32 = 17, KINDS
};
static const uint8_t WIDTH[KINDS] = {
    [KIND_RELATIVE32] = 4, [KIND_RELATIVE8] = 1, [KIND_ABSOLUTE32] = 4, [KIND_ABSOLUTE64] = 8, [KIND_OFFSET32] = 4,
    [KIND_BRANCH26] = 4, [KIND_BRANCH19] = 4, [KIND_BRANCH14] = 4, [KIND_PAGE21] = 4, [KIND_NEAR21] = 4, [KIND_LOW12] = 4,
    [KIND_SELF32] = 4, [KIND_BACKWARD32] = 4, [KIND_LENGTH32] = 4, [KIND_LENGTH64] = 8, [KIND_INDEX32] = 4, [KIND_TABLE32] = 4,
};

/* ---- numbers as JavaScript has them --------------------------------------------------------------------- */

/* `value | 0`, of any double. */
static int32_t to_int32(double value) {
  if (value >= -SAFE_MAX && value <= SAFE_MAX) return (int32_t)(uint32_t)(int64_t)value;
  if (!isfinite(value)) return 0;
  return (int32_t)(uint32_t)(int64_t)fmod(trunc(value), TWO32);
}

/* `Math.floor(value / 2 ** bits)`; floor itself is a call where the processor may lack the instruction. */
static double floor_shift(double value, int bits) {
  if (value >= -SAFE_MAX && value <= SAFE_MAX) {
    const int64_t whole = (int64_t)value;
    if ((double)whole == value) return (double)(whole >> bits);
  }
  return floor(ldexp(value, -bits));
}

/* `Math.round(value)` */
static double round_half_up(double value) {
  return fabs(value) >= 4503599627370496.0 ? value : floor(value + 0.5);
}

static uint32_t read_u32(const uint8_t *at) {
  return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void write_u32(uint8_t *at, uint32_t value) {
  for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> (8 * i));
}

/* ---- x86-64.ts ------------------------------------------------------------------------------------------ */

#define MODRM 0x80
enum { NONE, IMM8, IMM16, IMMZ, IMM64, OFFSET64, ENTER, REL32, REL8, PREFIX, REX, BAD, ESCAPE, TEST8, TESTZ };

/* x86-64.ts's own, which gives them: by the first byte, and by the one after 0f. */
static uint8_t ONE[256], TWO[256];

enum { RELATIVE32 = 1, RELATIVE8 = 2, ABSOLUTE32 = 3 };

/* A `field` of 0 comes with a `kind` of 0: no reference. */
struct decoded {
  uint16_t length : 5, field : 5, kind : 6;
};

static struct decoded pack(ptrdiff_t length, ptrdiff_t field, int kind) {
  return (struct decoded){(uint16_t)(length & 0x1f), (uint16_t)(field & 0x1f), (uint16_t)(kind & 0x3f)};
}

static int vexed(int map, int op) {
  if (map == 1) {
    if (op == 0x77) return NONE;
    return (op >= 0x70 && op <= 0x73) || op == 0xc2 || (op >= 0xc4 && op <= 0xc6) ? MODRM | IMM8 : MODRM;
  }
  if (map == 3) return MODRM | IMM8;
  return map == 2 || map == 5 || map == 6 ? MODRM : BAD;
}

/* Of the instruction at `code`. @param code of which 32 bytes may be read: a reference ends within the first 26. */
static struct decoded decode_whole(const uint8_t *code) {
  static const struct decoded one = {1, 0, 0};
  const uint8_t *at = code;
  bool operand16 = false, wide = false;
  int op = *at++;
  int what = ONE[op];
  for (int prefixes = 0; what == PREFIX; prefixes++) {
    if (prefixes == 10) return one;
    if (op == 0x66) operand16 = true;
    op = *at++;
    what = ONE[op];
  }
  if (what == REX) {
    wide = (op & 8) != 0;
    op = *at++;
    what = ONE[op];
    if (what == PREFIX || what == REX) return one;
  }
  if (what == ESCAPE) {
    if (op == 0x0f) {
      op = *at++;
      what = TWO[op];
      if (op == 0x38 || op == 0x3a) at++;
    } else {
      const int map = op == 0xc5 ? 1 : *at & (op == 0xc4 ? 0x1f : 0x07);
      at += op == 0xc5 ? 1 : op == 0xc4 ? 2 : 3;
      what = vexed(map, *at++);
    }
  }
  if (what == BAD) return one;
  int immediate = what & 0x0f;
  struct decoded found = {0, 0, 0};
  if ((what & MODRM) != 0) {
    const int modrm = *at++;
    const int mode = modrm >> 6;
    int displacement = mode == 1 ? 1 : mode == 2 ? 4 : 0;
    int kind = mode == 2 ? ABSOLUTE32 : 0;
    if (mode != 3 && (modrm & 7) == 4) {
      const int sib = *at++;
      if (mode == 0 && (sib & 7) == 5) displacement = 4, kind = ABSOLUTE32;
    } else if (mode == 0 && (modrm & 7) == 5) {
      displacement = 4, kind = RELATIVE32;
    }
    if (kind != 0) found = pack(0, at - code, kind);
    at += displacement;
    if (immediate >= TEST8) immediate = (modrm & 0x30) != 0 ? NONE : immediate == TEST8 ? IMM8 : IMMZ;
  }
  switch (immediate) {
    case NONE:
      break;
    case IMM8:
      at += 1;
      break;
    case IMM16:
      at += 2;
      break;
    case ENTER:
      at += 3;
      break;
    case OFFSET64:
      at += 8;
      break;
    case REL32:
      return pack(at + 4 - code, at - code, RELATIVE32);
    case REL8:
      return pack(at + 1 - code, at - code, RELATIVE8);
    default:
      if (immediate == IMM64 && wide) {
        at += 8;
      } else if (operand16) {
        at += 2;
      } else {
        if (found.kind == 0) found = pack(0, at - code, ABSOLUTE32);
        at += 4;
      }
  }
  return pack(at - code, found.field, found.kind);
}

/* What `decode_whole` says of instructions that two bytes tell, by these, and behind 0f by these; a length of 0: they do not. */
#define TWO_KEY 0x10000
static struct decoded KNOWN[2 * TWO_KEY];
static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool is_known;

static bool is_told(int key) {
  const int op = (key >> 8) & 0xff;
  const int what = (key < TWO_KEY ? ONE : TWO)[op];
  if (what == PREFIX || what == REX || what == ESCAPE || what == BAD || what == IMM64) return false;
  if (key >= TWO_KEY && (op == 0x38 || op == 0x3a)) return false;
  /* A SIB byte without a displacement behind it says whether there is one. */
  return (what & MODRM) == 0 || (key & 0xc7) != 4;
}

static void make_known(void) {
  for (int key = 0; key < 2 * TWO_KEY; key++) {
    uint8_t code[32] = {0};
    uint8_t *at = code;
    if (key >= TWO_KEY) *at++ = 0x0f;
    at[0] = (uint8_t)(key >> 8);
    at[1] = (uint8_t)key;
    if (is_told(key)) KNOWN[key] = decode_whole(code);
  }
}

/* Of the instruction at `code`, of which 32 bytes may be read. Most are looked up, which saves branches that no processor can foresee. */
static inline struct decoded decode(const uint8_t *code) {
  const int rex = (code[0] & 0xf0) == 0x40 ? 1 : 0;
  const uint8_t *at = code + rex;
  const struct decoded known = KNOWN[at[0] == 0x0f ? TWO_KEY | at[1] << 8 | at[2] : at[0] << 8 | at[1]];
  if (known.length == 0) return decode_whole(code);
  return pack(known.length + rex, known.field + rex, known.kind);
}

/* ---- references.ts: Found ------------------------------------------------------------------------------- */

/* One array of 25 bytes a reference: offsets, targets, extras, kinds. */
struct found {
  double *offsets, *targets, *extras;
  uint8_t *kinds;
  size_t room;
};

/* ---- x86-sweep.ts --------------------------------------------------------------------------------------- */

#define LEAD_BYTES 64
#define TAIL_BYTES 32

/* native.ts: sweep. `one` and `two` are what the search is told beside the stretch. */
struct sweep {
  double from, start, end, base, offset, bytes, low, high, one, two, count;
};

static inline bool holds(const struct sweep *s, double address) { return address >= s->low && address < s->high; }

/* Finds.add. One that there is no room for is only counted. */
static inline size_t add(const struct found *all, size_t count, double offset, uint8_t kind, double target, double extra) {
  if (count < all->room) {
    all->offsets[count] = offset;
    all->kinds[count] = kind;
    all->targets[count] = target;
    all->extras[count] = extra;
  }
  return count + 1;
}

/* @return how many there are with the `count` that were there before; those that there is no room for are only counted. */
static size_t sweep_x86(const struct found *all, const struct sweep *s, const uint8_t *bytes, size_t length) {
  const double stop = s->offset + s->bytes;
  const double first = fmax(fmax(s->offset, s->start - LEAD_BYTES), s->from) - s->from;
  const double last = fmin(s->end - s->from, (double)length - TAIL_BYTES);
  size_t count = (size_t)s->count;
  if (!(first < last)) return count;
  for (size_t place = (size_t)first; place < (size_t)last;) {
    const uint8_t *code = bytes + place;
    const struct decoded decoded = decode(code);
    const double at = s->from + (double)place;
    place += decoded.length;
    if (decoded.kind == 0) continue;
    const double offset = at + decoded.field;
    if (offset < s->start || offset >= s->end) continue;
    const uint8_t *field = code + decoded.field;
    uint8_t kind;
    double target, extra;
    if (decoded.kind == RELATIVE8) {
      kind = KIND_RELATIVE8;
      target = s->base + at + decoded.length + (int8_t)*field;
      extra = 1;
    } else {
      const bool relative = decoded.kind == RELATIVE32;
      if (offset + 4 > stop || (!relative && s->one == 0)) continue;
      kind = relative ? KIND_RELATIVE32 : KIND_ABSOLUTE32;
      target = relative ? s->base + at + decoded.length + (int32_t)read_u32(field) : read_u32(field);
      extra = relative ? decoded.length - decoded.field : 0;
      if (!holds(s, target)) continue;
    }
    count = add(all, count, offset, kind, target, extra);
  }
  return count;
}

/* ---- aarch64.ts ----------------------------------------------------------------------------------------- */

#define PAGE_BITS 12
#define PAGE 4096
#define REACH_BYTES 256
#define BLOCK_BYTES (16 * 1024)
#define REGISTERS 32

/* The low `bits` of `value` with their sign. */
static int32_t sign_of(uint32_t value, int bits) {
  const uint32_t sign = 1u << (bits - 1);
  return (int32_t)(((value & (2 * sign - 1)) ^ sign) - sign);
}

/* -1: not one of them. */
static int low12_shift(uint32_t word) {
  if ((word & 0xffc00000) == 0x91000000) return 0;
  if ((word & 0x3b000000) != 0x39000000) return -1;
  return (word & 0x04000000) != 0 && (word & 0x00800000) != 0 ? 4 : (int)(word >> 30);
}

static bool writes(uint32_t word) {
  const uint32_t group = (word >> 25) & 15;
  if (group == 8 || group == 9 || group == 5 || group == 13) return true;
  return (group & 5) == 4 && (word & 0x04000000) == 0 && (word & 0x00c00000) != 0;
}

/* What was found of each word of a block: an ADRP is told when it is used, behind others. */
struct words {
  double first; /* `start`, or the first word behind it */
  size_t count;
  double targets[BLOCK_BYTES / 4 + 1];
  uint8_t kinds[BLOCK_BYTES / 4 + 1]; /* KINDS: none */
  uint8_t shifts[BLOCK_BYTES / 4 + 1];
};

static void put_word(struct words *words, double at, uint8_t kind, double target, int shift) {
  const size_t index = (size_t)(at - words->first) / 4;
  if (index >= words->count) return;
  words->targets[index] = target;
  words->kinds[index] = kind;
  words->shifts[index] = (uint8_t)shift;
}

struct registers {
  double pages[REGISTERS], setters[REGISTERS];
  bool seen[REGISTERS];
};

static void flush(struct words *words, struct registers *r, uint32_t at, double start) {
  const double setter = r->setters[at];
  if (setter != 0 && setter >= start && !r->seen[at]) put_word(words, setter, KIND_PAGE21, r->pages[at], 0);
  r->setters[at] = 0;
}

/* As sweep_x86. A stretch is no longer than a block. */
static size_t sweep_aarch64(const struct found *all, const struct sweep *s, const uint8_t *bytes, size_t length) {
  struct words words;
  struct registers r = {0};
  const double stop = s->offset + s->bytes;
  double at = fmax(fmax(s->offset, s->start - LEAD_BYTES), s->from);
  at += fmod(4 - fmod(at - s->offset, 4), 4);
  words.first = at + 4 * ceil(fmax(0, s->start - at) / 4);
  words.count = s->end > words.first ? (size_t)fmin(ceil((s->end - words.first) / 4), BLOCK_BYTES / 4 + 1) : 0;
  memset(words.kinds, KINDS, words.count);
  for (; at < s->end && at + 4 <= stop && at - s->from + 4 <= (double)length; at += 4) {
    const uint32_t word = read_u32(bytes + (size_t)(at - s->from));
    const double pc = s->base + at;
    const bool inside = at >= s->start;
    if ((word & 0x7c000000) == 0x14000000) {
      if (word >> 31 != 0)
        for (uint32_t one = 0; one <= 18; one++) flush(&words, &r, one, s->start);
      const double target = pc + 4.0 * sign_of(word, 26);
      if (inside && target >= s->low && target < s->high) put_word(&words, at, KIND_BRANCH26, target, 0);
    } else if ((word & 0xff000010) == 0x54000000 || (word & 0x7e000000) == 0x34000000 || (word & 0x3b000000) == 0x18000000) {
      if (inside) put_word(&words, at, KIND_BRANCH19, pc + 4.0 * sign_of(word >> 5, 19), 0);
    } else if ((word & 0x7e000000) == 0x36000000) {
      if (inside) put_word(&words, at, KIND_BRANCH14, pc + 4.0 * sign_of(word >> 5, 14), 0);
    } else if ((word & 0x1f000000) == 0x10000000) {
      const double value = 4.0 * sign_of(word >> 5, 19) + ((word >> 29) & 3);
      if (word >> 31 == 0) {
        const double target = pc + value;
        if (inside && target >= s->low && target < s->high) put_word(&words, at, KIND_NEAR21, target, 0);
        continue;
      }
      const uint32_t one = word & 31;
      flush(&words, &r, one, s->start);
      const double page = floor_shift(pc, PAGE_BITS) * PAGE + value * PAGE;
      const double last = page + PAGE - 1;
      if (!(page >= s->low && page < s->high) && !(last >= s->low && last < s->high)) continue;
      r.setters[one] = at;
      r.pages[one] = page;
      r.seen[one] = false;
    } else {
      const int shift = low12_shift(word);
      const uint32_t one = (word >> 5) & 31;
      const double setter = r.setters[one];
      if (shift >= 0 && setter != 0 && at - setter <= REACH_BYTES) {
        const double target = r.pages[one] + (double)(((word >> 10) & 0xfff) << shift);
        if (inside) put_word(&words, at, KIND_LOW12, target, shift);
        if (!r.seen[one] && setter >= s->start) put_word(&words, setter, KIND_PAGE21, target, 0);
        r.seen[one] = true;
      }
      if (writes(word)) flush(&words, &r, word & 31, s->start);
    }
  }
  for (uint32_t one = 0; one < REGISTERS; one++) flush(&words, &r, one, s->start);
  size_t count = (size_t)s->count;
  for (size_t index = 0; index < words.count; index++) {
    if (words.kinds[index] == KINDS) continue;
    const double offset = words.first + 4 * (double)index;
    count = add(all, count, offset, words.kinds[index], words.targets[index], words.shifts[index]);
  }
  return count;
}

/* ---- references.ts: data ---------------------------------------------------------------------------------- */

/* The first of `every` bytes that is not before `start`, as they are counted from the part's start. */
static double first_of(const struct sweep *s, double every, double place) {
  return s->offset + ceil((s->start - s->offset - place) / every) * every + place;
}

/* `length` bytes at `offset`; NULL where there are fewer. */
static inline const uint8_t *bytes_at(const struct sweep *s, const uint8_t *bytes, size_t length, double offset, double wanted) {
  const double at = offset - s->from;
  return at >= 0 && at + wanted <= (double)length ? bytes + (size_t)at : NULL;
}

static double address64(const uint8_t *at) {
  const uint32_t high = read_u32(at + 4);
  return high > 0x7fff ? UNLOADED : high * TWO32 + read_u32(at);
}

/* #pointers: one = every, two = place. */
static size_t sweep_pointers(const struct found *all, const struct sweep *s, const uint8_t *bytes, size_t length) {
  size_t count = (size_t)s->count;
  const double stop = fmin(s->end, s->offset + s->bytes - 7);
  for (double offset = first_of(s, s->one, s->two); offset < stop; offset += s->one) {
    const uint8_t *at = bytes_at(s, bytes, length, offset, 8);
    if (at == NULL) break;
    const double target = address64(at);
    if (holds(s, target)) count = add(all, count, offset, KIND_ABSOLUTE64, target, 0);
  }
  return count;
}

#define SYMBOL_BYTES 24

/* #symbols: one = strings. */
static size_t sweep_symbols(const struct found *all, const struct sweep *s, const uint8_t *bytes, size_t length) {
  size_t count = (size_t)s->count;
  const double stop = s->offset + s->bytes;
  double offset = s->offset + fmax(0, floor((s->start - s->offset) / SYMBOL_BYTES)) * SYMBOL_BYTES;
  for (; offset < s->end && offset + SYMBOL_BYTES <= stop; offset += SYMBOL_BYTES) {
    const uint8_t *at = bytes_at(s, bytes, length, offset, SYMBOL_BYTES);
    if (at == NULL) break;
    const bool inside[] = {offset >= s->start, offset + 8 >= s->start && offset + 8 < s->end, offset + 16 >= s->start && offset + 16 < s->end};
    const uint32_t name = read_u32(at);
    if (name != 0 && s->one != 0 && inside[0]) count = add(all, count, offset, KIND_OFFSET32, s->one + name, s->one);
    const double value = address64(at + 8);
    if (!holds(s, value)) continue;
    if (inside[1]) count = add(all, count, offset + 8, KIND_ABSOLUTE64, value, 0);
    const double last = value + address64(at + 16) - 1;
    if (last < value || !holds(s, last) || !inside[2]) continue;
    count = add(all, count, offset + 16, KIND_LENGTH64, last, value);
  }
  return count;
}

/* #offsets: one = anchor, two = skip. */
static size_t sweep_offsets(const struct found *all, const struct sweep *s, const uint8_t *bytes, size_t length) {
  size_t count = (size_t)s->count;
  for (double offset = fmax(s->offset + s->two, first_of(s, 4, 0)); offset + 4 <= s->end; offset += 4) {
    const uint8_t *at = bytes_at(s, bytes, length, offset, 4);
    if (at == NULL) break;
    const double target = s->one + (int32_t)read_u32(at);
    if (holds(s, target)) count = add(all, count, offset, KIND_OFFSET32, target, s->one);
  }
  return count;
}

#define JUMPS_MIN 3
#define JUMP_SPAN_BYTES (256 * 1024)

/* #jumpTables: low and high of the code. */
static size_t sweep_tables(const struct found *all, const struct sweep *s, const uint8_t *bytes, size_t length) {
  size_t count = (size_t)s->count;
  for (double offset = ceil(s->start / 4) * 4; offset + 4 * JUMPS_MIN <= s->end;) {
    const double anchor = s->base + offset, left = floor((s->end - offset) / 4);
    const uint8_t *table = bytes_at(s, bytes, length, offset, 4 * left);
    if (table == NULL) break;
    const double first = (int32_t)read_u32(table);
    double jumps = 0;
    for (; jumps < left; jumps++) {
      const double value = (int32_t)read_u32(table + 4 * (size_t)jumps);
      if (!holds(s, anchor + value) || !(fabs(value - first) < JUMP_SPAN_BYTES)) break;
    }
    if (jumps >= JUMPS_MIN)
      for (double at = 0; at < jumps; at++)
        count = add(all, count, offset + 4 * at, KIND_TABLE32, anchor + (int32_t)read_u32(table + 4 * (size_t)at), anchor);
    offset += 4 * fmax(1, jumps);
  }
  return count;
}

/* #loose */
static size_t sweep_loose(const struct found *all, const struct sweep *s, const uint8_t *bytes, size_t length) {
  size_t count = (size_t)s->count;
  const double stop = s->offset + s->bytes;
  for (double offset = s->start; offset < s->end && offset + 8 <= stop; offset += 1) {
    const uint8_t *at = bytes_at(s, bytes, length, offset, 8);
    if (at == NULL) break;
    if (at[7] != 0 || at[6] != 0 || at[2] == 0) continue;
    const double target = address64(at);
    if (target < 0x10000 || !holds(s, target)) continue;
    count = add(all, count, offset, KIND_ABSOLUTE64, target, 0);
    offset += 7;
  }
  return count;
}

typedef size_t search(const struct found *, const struct sweep *, const uint8_t *, size_t);
/* native.ts: SEARCHES */
static search *const SEARCHES[] = {sweep_x86, sweep_aarch64, sweep_pointers, sweep_symbols, sweep_offsets, sweep_tables, sweep_loose};

/* ---- prediction.ts -------------------------------------------------------------------------------------- */

#define EXACT_BITS 18
#define SEEN_BITS 19
#define SURE_MAX 3
#define BESIDE 6
#define NEAR_BITS 14
#define NEAR_SHIFT 8
#define MARK_BITS 12
#define LONGER_MAX 4096

struct segment {
  double offset, address, file_bytes, memory_bytes;
};
struct section {
  double address, bytes, young;
};

/* The arrays of a Prediction's `tables`, which the TypeScript uses as well. */
struct tables {
  double *exact_keys, *exact_moves, *near_keys, *near_moves;
  uint8_t *exact_sure;
  int32_t *exact_seen;
  const double *news, *olds, *lengths;
  int32_t count;
  const struct segment *old_segments, *new_segments;
  int32_t old_count, new_count;
  const struct section *sections;
  int32_t section_count;
  /* Which old segment, new segment and section was the last; -1: none. */
  int32_t *last;
  double *pages;
  const double *starts;
  const int32_t *owners;
  const uint32_t *marks;
  size_t stretches, mark_count;
  double *job;
  /* Of the TypeScript's private fields, which follow from what they were asked for. */
  int32_t range;
  double range_low, range_high;
  size_t last_stretch;
};
enum { LAST_OLD, LAST_NEW, LAST_SECTION, LASTS };

static uint32_t hash_of(double key) {
  const uint32_t mixed = ((uint32_t)to_int32(key) ^ (uint32_t)to_int32(floor_shift(key, 32))) * 0x9e3779b1u;
  return mixed ^ (mixed >> 15);
}

#define EXACT_MASK ((1u << EXACT_BITS) - 1)
#define SEEN_MASK ((1u << SEEN_BITS) - 1)
#define NEAR_MASK ((1u << NEAR_BITS) - 1)

static bool is_seen(const struct tables *t, uint32_t hash) {
  return (((uint32_t)t->exact_seen[(hash & SEEN_MASK) >> 5] >> (hash & 31)) & 1) != 0;
}

static double section_move(struct tables *t, double old) {
  int32_t at = t->last[LAST_SECTION];
  if (at < 0 || at >= t->section_count || old < t->sections[at].address ||
      old >= t->sections[at].address + t->sections[at].bytes) {
    for (at = 0; at < t->section_count; at++)
      if (old >= t->sections[at].address && old < t->sections[at].address + t->sections[at].bytes) break;
    if (at == t->section_count) return 0;
    t->last[LAST_SECTION] = at;
  }
  return t->sections[at].young - t->sections[at].address;
}

static double anchor_of(const struct tables *t, double old) {
  for (int32_t at = 0; at < t->section_count; at++)
    if (t->sections[at].address == old) return t->sections[at].young;
  return old;
}

static double address_of(struct tables *t, double offset) {
  const int32_t last = t->last[LAST_NEW];
  if (last >= 0 && last < t->new_count) {
    const struct segment *one = &t->new_segments[last];
    if (offset >= one->offset && offset < one->offset + one->file_bytes) return one->address + offset - one->offset;
  }
  for (int32_t at = 0; at < t->new_count; at++) {
    const struct segment *one = &t->new_segments[at];
    if (offset < one->offset || offset >= one->offset + one->file_bytes) continue;
    t->last[LAST_NEW] = at;
    return one->address + offset - one->offset;
  }
  return UNLOADED + offset;
}

/* Nowhere in the file; what is somewhere is at 0 or above. */
#define NOWHERE (-1.0)

static double offset_of(struct tables *t, double old) {
  if (old >= UNLOADED) return old - UNLOADED;
  int32_t at = t->last[LAST_OLD];
  if (at < 0 || at >= t->old_count || old < t->old_segments[at].address ||
      old >= t->old_segments[at].address + t->old_segments[at].memory_bytes) {
    for (at = 0; at < t->old_count; at++)
      if (old >= t->old_segments[at].address && old < t->old_segments[at].address + t->old_segments[at].memory_bytes) break;
    if (at == t->old_count) at = -1;
    t->last[LAST_OLD] = at;
  }
  if (at < 0) return NOWHERE;
  const double into = old - t->old_segments[at].address;
  return into < t->old_segments[at].file_bytes ? t->old_segments[at].offset + into : NOWHERE;
}

static void enter(struct tables *t, int32_t range) {
  double low = INFINITY, high = 0;
  for (int32_t at = range > BESIDE ? range - BESIDE : 0; at <= range + BESIDE && at < t->count; at++) {
    low = fmin(low, t->olds[at]);
    high = fmax(high, t->olds[at] + t->lengths[at]);
  }
  t->range = range;
  t->range_low = low;
  t->range_high = high;
}

static double beside(const struct tables *t, double offset, int32_t range) {
  for (int32_t step = 0; step <= 2 * BESIDE; step++) {
    const int32_t at = range + ((step & 1) == 0 ? step >> 1 : -((step + 1) >> 1));
    if (at < 0 || at >= t->count) continue;
    const double into = offset - t->olds[at];
    if (into >= 0 && into < t->lengths[at]) return t->news[at] + into;
  }
  return NOWHERE;
}

/* owners.ts: of. */
static int32_t owner_of(struct tables *t, double offset) {
  size_t low = 0, high = t->stretches, last = t->last_stretch;
  if (last < high && t->starts[last] <= offset) {
    low = last + 1;
    if (low == high || t->starts[low] > offset) return t->owners[last];
  }
  const double mark = floor_shift(offset, MARK_BITS);
  if (mark >= 0 && mark + 1 < (double)t->mark_count) {
    const size_t at = (size_t)mark;
    if (t->marks[at] > low) low = t->marks[at];
    if (t->marks[at + 1] < high) high = t->marks[at + 1];
  }
  while (low < high) {
    const size_t middle = (low + high) >> 1;
    if (t->starts[middle] <= offset) low = middle + 1;
    else high = middle;
  }
  if (low == 0 || low > t->stretches) return -1;
  t->last_stretch = low - 1;
  return t->owners[low - 1];
}

static double ranged(struct tables *t, double offset) {
  const int32_t owner = owner_of(t, offset);
  if (owner < 0 || owner >= t->count) return NOWHERE;
  return t->news[owner] + offset - t->olds[owner];
}

static double target_of(struct tables *t, double old, int32_t range) {
  const uint32_t hash = hash_of(old), slot = hash & EXACT_MASK;
  const bool known = is_seen(t, hash) && t->exact_keys[slot] == old;
  if (known && t->exact_sure[slot] > 0) return old + t->exact_moves[slot];
  const double offset = offset_of(t, old);
  if (offset != NOWHERE) {
    if (range != t->range) enter(t, range);
    const bool near = offset >= t->range_low && offset < t->range_high;
    const double local = near ? beside(t, offset, range) : NOWHERE;
    if (local != NOWHERE) return old >= UNLOADED ? UNLOADED + local : address_of(t, local);
    const double young = ranged(t, offset);
    if (young != NOWHERE) return old >= UNLOADED ? UNLOADED + young : address_of(t, young);
  }
  if (known) return old + t->exact_moves[slot];
  const double near = floor_shift(old, NEAR_SHIFT);
  const uint32_t near_slot = hash_of(near) & NEAR_MASK;
  if (t->near_keys[near_slot] == near) return old + t->near_moves[near_slot];
  return old + section_move(t, old);
}

static double length_of(struct tables *t, double first, double last) {
  const double old = last + 1 - first;
  const double from = offset_of(t, first), to = offset_of(t, last);
  if (from == NOWHERE || to == NOWHERE) return old;
  const int32_t owner = owner_of(t, from);
  const double end = owner < 0 || owner >= t->count ? NOWHERE : beside(t, to, owner);
  if (end == NOWHERE) return old;
  const double length = end + 1 - (t->news[owner] + from - t->olds[owner]);
  return length > 0 && length < 2 * old + LONGER_MAX ? length : old;
}

static void learn(struct tables *t, double old, double young, bool right) {
  const double move = young - old;
  const uint32_t hash = hash_of(old), slot = hash & EXACT_MASK;
  if (is_seen(t, hash) && t->exact_keys[slot] == old) {
    const uint8_t sure = t->exact_sure[slot];
    if (t->exact_moves[slot] == move) t->exact_sure[slot] = sure < SURE_MAX ? sure + 1 : SURE_MAX;
    else if (sure > 0) t->exact_sure[slot] = sure - 1;
    else t->exact_moves[slot] = move;
  } else if (!right) {
    t->exact_keys[slot] = old;
    t->exact_moves[slot] = move;
    t->exact_sure[slot] = 0;
    const uint32_t word = (hash & SEEN_MASK) >> 5;
    t->exact_seen[word] = (int32_t)((uint32_t)t->exact_seen[word] | 1u << (hash & 31));
  }
  const double near = floor_shift(old, NEAR_SHIFT);
  const uint32_t near_slot = hash_of(near) & NEAR_MASK;
  t->near_keys[near_slot] = near;
  t->near_moves[near_slot] = move;
}

/* ---- decoder.ts: what the prediction missed ------------------------------------------------------------- */

struct column {
  const uint8_t *bytes;
  size_t length, at;
};
struct fixes {
  /* References until the next that is wrong. */
  double right;
  struct column skips, fixes;
};

/* bytes.ts: ByteReader.integer; false where that throws. */
static bool integer(struct column *column, double *value) {
  uint64_t sum = 0;
  for (int count = 0; count < 8; count++) {
    if (column->at >= column->length) return false;
    const uint8_t next = column->bytes[column->at++];
    sum |= (uint64_t)(next & 0x7f) << (7 * count);
    if (next < 0x80) {
      *value = (double)sum;
      return sum <= (uint64_t)SAFE_MAX;
    }
  }
  return false;
}

/* False, and nothing is taken, where the TypeScript throws. */
static bool fix(struct fixes *all, double predicted, double *value) {
  if (all->right > 0) {
    all->right -= 1;
    *value = predicted;
    return true;
  }
  struct fixes next = *all;
  double miss;
  if (!integer(&next.fixes, &miss)) return false;
  next.right = INFINITY;
  if (next.skips.at < next.skips.length && !integer(&next.skips, &next.right)) return false;
  *value = predicted + (((int64_t)miss & 1) == 0 ? miss / 2 : -(miss + 1) / 2);
  *all = next;
  return true;
}

/* ---- copier.ts ------------------------------------------------------------------------------------------ */

/* native.ts: PIECE. */
struct job {
  double place, bytes, from, to, range, index, count, right, skips_at, fixes_at;
};

/* `cut`: as it will be read back from the field. */
static double cut(uint8_t kind, double value) {
  switch (kind) {
    case KIND_ABSOLUTE64:
    case KIND_LENGTH64:
      return value < 0 || value >= SAFE_MAX + 1 ? 0 : value;
    case KIND_RELATIVE8:
      return (int8_t)to_int32(value);
    case KIND_RELATIVE32:
    case KIND_SELF32:
    case KIND_TABLE32:
      return to_int32(value);
    case KIND_BRANCH26:
      return sign_of((uint32_t)to_int32(value), 26);
    case KIND_BRANCH19:
      return sign_of((uint32_t)to_int32(value), 19);
    case KIND_BRANCH14:
      return sign_of((uint32_t)to_int32(value), 14);
    case KIND_PAGE21:
    case KIND_NEAR21:
      return sign_of((uint32_t)to_int32(value), 21);
    case KIND_LOW12:
      return to_int32(value) & 0xfff;
    default:
      return (uint32_t)to_int32(value);
  }
}

/* fields.ts: writeField */
static void write_field(uint8_t *field, uint8_t kind, double value) {
  const uint32_t number = (uint32_t)to_int32(value);
  uint32_t mask, bits;
  switch (kind) {
    case KIND_RELATIVE8:
      *field = (uint8_t)number;
      return;
    case KIND_ABSOLUTE64:
    case KIND_LENGTH64:
      write_u32(field + 4, (uint32_t)to_int32(floor_shift(value, 32)));
      write_u32(field, number);
      return;
    case KIND_BRANCH26:
      mask = 0x03ffffff, bits = number;
      break;
    case KIND_BRANCH19:
      mask = 0x00ffffe0, bits = number << 5;
      break;
    case KIND_BRANCH14:
      mask = 0x0007ffe0, bits = number << 5;
      break;
    case KIND_PAGE21:
    case KIND_NEAR21:
      mask = 0x60ffffe0, bits = (number & 3) << 29 | (number << 3 & 0x00ffffe0);
      break;
    case KIND_LOW12:
      mask = 0x003ffc00, bits = number << 10;
      break;
    default:
      write_u32(field, number);
      return;
  }
  write_u32(field, (read_u32(field) & ~mask) | (bits & mask));
}

/* `predict` from one reference on. @return the first that is left to the TypeScript, `count` if none is. */
static size_t predict(struct tables *t, const struct found *all, uint8_t *piece, const struct job *job, struct fixes *fixes) {
  const size_t count = (size_t)job->count;
  const int32_t range = (int32_t)job->range;
  for (size_t index = (size_t)job->index; index < count; index++) {
    const double offset = all->offsets[index];
    const uint8_t kind = all->kinds[index];
    if (kind >= KINDS || WIDTH[kind] == 0 || !(offset >= job->from)) return index;
    const double at = offset - job->from;
    if (at + WIDTH[kind] > job->bytes) return count;
    const double address = address_of(t, job->to + at);
    const double old = all->targets[index];
    double extra = all->extras[index];
    if (kind == KIND_OFFSET32 || kind == KIND_INDEX32) extra = anchor_of(t, extra);
    else if (kind == KIND_TABLE32) extra = target_of(t, extra, range);
    const bool is_length = kind == KIND_LENGTH32 || kind == KIND_LENGTH64;
    const double target = is_length ? length_of(t, extra, old) : target_of(t, old, range);
    double value; /* fields.ts: valueFor */
    switch (kind) {
      case KIND_RELATIVE32:
      case KIND_RELATIVE8:
        value = target - address - extra;
        break;
      case KIND_BACKWARD32:
        value = address - target;
        break;
      case KIND_OFFSET32:
      case KIND_TABLE32:
        value = target - extra;
        break;
      case KIND_INDEX32:
        value = round_half_up((target - extra) / 24);
        break;
      case KIND_SELF32:
      case KIND_NEAR21:
        value = target - address;
        break;
      case KIND_BRANCH26:
      case KIND_BRANCH19:
      case KIND_BRANCH14:
        value = floor_shift(target - address, 2);
        break;
      case KIND_PAGE21:
        value = floor_shift(target, PAGE_BITS) - floor_shift(address, PAGE_BITS);
        break;
      case KIND_LOW12:
        value = floor(ldexp(fmod(target, PAGE), -(int)extra));
        break;
      default: /* absolute, or a length */
        value = target;
    }
    const double predicted = cut(kind, value);
    if (!fix(fixes, predicted, &value)) return index;
    uint8_t *field = piece + (size_t)at;
    write_field(field, kind, value);
    double young; /* fields.ts: targetFor; copier.ts: pagedTarget */
    switch (kind) {
      case KIND_RELATIVE8: /* Too near to be worth remembering. */
      case KIND_LENGTH32:
      case KIND_LENGTH64:
        continue;
      case KIND_RELATIVE32:
        young = value + address + extra;
        break;
      case KIND_BACKWARD32:
        young = address - value;
        break;
      case KIND_OFFSET32:
      case KIND_TABLE32:
        young = value + extra;
        break;
      case KIND_INDEX32:
        young = 24 * value + extra;
        break;
      case KIND_SELF32:
      case KIND_NEAR21:
        young = value + address;
        break;
      case KIND_BRANCH26:
      case KIND_BRANCH19:
      case KIND_BRANCH14:
        young = address + 4 * value;
        break;
      case KIND_PAGE21:
        t->pages[*field & 31] = (floor_shift(address, PAGE_BITS) + value) * PAGE;
        continue;
      case KIND_LOW12:
        young = t->pages[(read_u32(field) >> 5) & 31] + ldexp(value, (int)extra);
        break;
      default:
        young = value;
    }
    learn(t, old, young, value == predicted);
  }
  return count;
}

/* ---- the door: arrays are looked at here, and numbers are seen to fit ------------------------------------- */

static napi_value fail(napi_env env, const char *what) {
  napi_throw_type_error(env, "ERR_INVALID_ARG_VALUE", what);
  return NULL;
}

struct array {
  void *data;
  size_t length;
};

static bool take_array(napi_env env, napi_value value, napi_typedarray_type type, struct array *array) {
  napi_typedarray_type is;
  bool typed;
  return napi_is_typedarray(env, value, &typed) == napi_ok && typed &&
         napi_get_typedarray_info(env, value, &is, &array->length, &array->data, NULL, NULL) == napi_ok && is == type;
}

static bool take_found(napi_env env, napi_value value, struct found *all) {
  struct array memory;
  if (!take_array(env, value, napi_float64_array, &memory) || memory.length == 0 || memory.length % 25 != 0) return false;
  const size_t room = memory.length / 25 * 8;
  all->offsets = memory.data;
  all->targets = all->offsets + room;
  all->extras = all->targets + room;
  all->kinds = (uint8_t *)(all->extras + room);
  all->room = room;
  return true;
}

/* A whole number from 0 to `max`. */
static bool is_count(double value, double max) { return value >= 0 && value <= max && value == floor(value); }

/* native.ts: begin(one, two). Once in a process, whichever of its threads is first: all have the same. */
static napi_value Begin(napi_env env, napi_callback_info info) {
  size_t given = 2;
  napi_value at[2];
  struct array one, two;
  if (napi_get_cb_info(env, info, &given, at, NULL, NULL) != napi_ok || given < 2 ||
      !take_array(env, at[0], napi_uint8_array, &one) || one.length != sizeof ONE ||
      !take_array(env, at[1], napi_uint8_array, &two) || two.length != sizeof TWO)
    return fail(env, "begin: not the tables that it needs");
  pthread_mutex_lock(&known_lock);
  if (!is_known) {
    memcpy(ONE, one.data, sizeof ONE);
    memcpy(TWO, two.data, sizeof TWO);
    make_known();
    is_known = true;
  }
  pthread_mutex_unlock(&known_lock);
  return NULL;
}

/* native.ts: sweep(bytes, memory, job, search). */
static napi_value Sweep(napi_env env, napi_callback_info info) {
  size_t given = 4;
  napi_value at[4], result;
  struct array bytes, numbers;
  struct found all;
  if (napi_get_cb_info(env, info, &given, at, NULL, NULL) != napi_ok || given < 4 ||
      !take_array(env, at[0], napi_uint8_array, &bytes) || !take_found(env, at[1], &all) ||
      !take_array(env, at[2], napi_float64_array, &numbers) || numbers.length * sizeof(double) != sizeof(struct sweep))
    return fail(env, "sweep: not the arrays that it needs");
  const struct sweep *s = numbers.data;
  if (!is_known) return fail(env, "sweep: not begun");
  if (!is_count(s->from, SAFE_MAX) || !is_count(s->start, SAFE_MAX) || !is_count(s->end, SAFE_MAX) ||
      !is_count(s->offset, SAFE_MAX) || !is_count(s->one, SAFE_MAX) || !is_count(s->two, SAFE_MAX) ||
      !is_count(s->count, (double)all.room))
    return fail(env, "sweep: a number that does not fit");
  uint32_t which;
  if (napi_get_value_uint32(env, at[3], &which) != napi_ok || which >= sizeof SEARCHES / sizeof SEARCHES[0])
    return fail(env, "sweep: of no kind");
  if (SEARCHES[which] == sweep_pointers && s->one < 1) return fail(env, "sweep: a number that does not fit");
  const size_t count = SEARCHES[which](&all, s, bytes.data, bytes.length);
  if (napi_create_double(env, (double)count, &result) != napi_ok) return NULL;
  return result;
}

static const napi_type_tag TABLES = {0x6d69646169722d64, 0x6d6f7665732d7462};

static void free_tables(napi_env env, void *data, void *hint) {
  (void)env, (void)hint;
  free(data);
}

static bool take_named(napi_env env, napi_value object, const char *name, napi_typedarray_type type, struct array *array) {
  napi_value value;
  return napi_get_named_property(env, object, name, &value) == napi_ok && take_array(env, value, type, array);
}

/* native.ts: bind(tables). The arrays live as long as the object that they are properties of; it is frozen. */
static napi_value Bind(napi_env env, napi_callback_info info) {
  enum { EXACT_KEYS, EXACT_MOVES, EXACT_SURE, EXACT_SEEN, NEAR_KEYS, NEAR_MOVES, NEWS, OLDS, LENGTHS, OLD_SEGMENTS,
         NEW_SEGMENTS, SECTIONS, LAST, PAGES, STARTS, OWNERS, MARKS, JOB, ARRAYS };
  static const struct {
    const char *name;
    napi_typedarray_type type;
    size_t length; /* 0: any */
  } wanted[ARRAYS] = {
      [EXACT_KEYS] = {"exactKeys", napi_float64_array, 1u << EXACT_BITS},
      [EXACT_MOVES] = {"exactMoves", napi_float64_array, 1u << EXACT_BITS},
      [EXACT_SURE] = {"exactSure", napi_uint8_array, 1u << EXACT_BITS},
      [EXACT_SEEN] = {"exactSeen", napi_int32_array, 1u << (SEEN_BITS - 5)},
      [NEAR_KEYS] = {"nearKeys", napi_float64_array, 1u << NEAR_BITS},
      [NEAR_MOVES] = {"nearMoves", napi_float64_array, 1u << NEAR_BITS},
      [NEWS] = {"news", napi_float64_array, 0},
      [OLDS] = {"olds", napi_float64_array, 0},
      [LENGTHS] = {"lengths", napi_float64_array, 0},
      [OLD_SEGMENTS] = {"oldSegments", napi_float64_array, 0},
      [NEW_SEGMENTS] = {"newSegments", napi_float64_array, 0},
      [SECTIONS] = {"sections", napi_float64_array, 0},
      [LAST] = {"last", napi_int32_array, LASTS},
      [PAGES] = {"pages", napi_float64_array, REGISTERS},
      [STARTS] = {"starts", napi_float64_array, 0},
      [OWNERS] = {"owners", napi_int32_array, 0},
      [MARKS] = {"marks", napi_uint32_array, 0},
      [JOB] = {"job", napi_float64_array, sizeof(struct job) / sizeof(double)},
  };
  struct array all[ARRAYS];
  size_t given = 1;
  napi_value object;
  if (napi_get_cb_info(env, info, &given, &object, NULL, NULL) != napi_ok || given < 1) return fail(env, "bind: no tables");
  for (int i = 0; i < ARRAYS; i++)
    if (!take_named(env, object, wanted[i].name, wanted[i].type, &all[i]) || all[i].length > INT32_MAX / 2 ||
        (wanted[i].length != 0 && all[i].length != wanted[i].length))
      return fail(env, "bind: not the tables that it needs");
  if (all[OLDS].length != all[NEWS].length || all[LENGTHS].length != all[NEWS].length ||
      all[OWNERS].length != all[STARTS].length || all[OLD_SEGMENTS].length % 4 != 0 || all[NEW_SEGMENTS].length % 4 != 0 ||
      all[SECTIONS].length % 3 != 0)
    return fail(env, "bind: tables that do not go together");
  struct tables *t = calloc(1, sizeof *t);
  if (t == NULL) return fail(env, "bind: no memory");
  *t = (struct tables){
      .exact_keys = all[EXACT_KEYS].data, .exact_moves = all[EXACT_MOVES].data, .exact_sure = all[EXACT_SURE].data,
      .exact_seen = all[EXACT_SEEN].data, .near_keys = all[NEAR_KEYS].data, .near_moves = all[NEAR_MOVES].data,
      .news = all[NEWS].data, .olds = all[OLDS].data, .lengths = all[LENGTHS].data, .count = (int32_t)all[NEWS].length,
      .old_segments = all[OLD_SEGMENTS].data, .old_count = (int32_t)(all[OLD_SEGMENTS].length / 4),
      .new_segments = all[NEW_SEGMENTS].data, .new_count = (int32_t)(all[NEW_SEGMENTS].length / 4),
      .sections = all[SECTIONS].data, .section_count = (int32_t)(all[SECTIONS].length / 3), .last = all[LAST].data,
      .pages = all[PAGES].data,
      .starts = all[STARTS].data, .owners = all[OWNERS].data, .stretches = all[STARTS].length,
      .marks = all[MARKS].data, .mark_count = all[MARKS].length, .job = all[JOB].data, .range = -1,
  };
  if (napi_wrap(env, object, t, free_tables, NULL, NULL) != napi_ok) {
    free(t);
    return fail(env, "bind: not an object, or bound before");
  }
  if (napi_type_tag_object(env, object, &TABLES) != napi_ok) return fail(env, "bind: tagged before");
  return NULL;
}

/* native.ts: predict(tables, memory, out, skips, fixes), with `tables.job`. */
static napi_value Predict(napi_env env, napi_callback_info info) {
  size_t given = 5;
  napi_value at[5], result;
  struct tables *t;
  struct array out, skips, corrections;
  struct found all;
  bool ours;
  if (napi_get_cb_info(env, info, &given, at, NULL, NULL) != napi_ok || given < 5 ||
      napi_check_object_type_tag(env, at[0], &TABLES, &ours) != napi_ok || !ours ||
      napi_unwrap(env, at[0], (void **)&t) != napi_ok || !take_found(env, at[1], &all) ||
      !take_array(env, at[2], napi_uint8_array, &out) || !take_array(env, at[3], napi_uint8_array, &skips) ||
      !take_array(env, at[4], napi_uint8_array, &corrections))
    return fail(env, "predict: not the arrays that it needs");
  const struct job job = *(const struct job *)t->job;
  if (!is_count(job.place, (double)out.length) || !is_count(job.bytes, (double)out.length - job.place) ||
      !is_count(job.from, SAFE_MAX / 2) || !is_count(job.to, SAFE_MAX) || !is_count(job.range, t->count - 1) ||
      !is_count(job.count, (double)all.room) || !is_count(job.index, job.count) ||
      !is_count(job.skips_at, (double)skips.length) || !is_count(job.fixes_at, (double)corrections.length))
    return fail(env, "predict: a number that does not fit");
  struct fixes fixes = {.right = job.right, .skips = {skips.data, skips.length, (size_t)job.skips_at},
                        .fixes = {corrections.data, corrections.length, (size_t)job.fixes_at}};
  const size_t index = predict(t, &all, (uint8_t *)out.data + (size_t)job.place, &job, &fixes);
  struct job *said = (struct job *)t->job;
  said->right = fixes.right;
  said->skips_at = (double)fixes.skips.at;
  said->fixes_at = (double)fixes.fixes.at;
  if (napi_create_double(env, (double)index, &result) != napi_ok) return NULL;
  return result;
}

NAPI_MODULE_INIT() {
  static const struct {
    const char *name;
    napi_callback function;
  } functions[] = {{"begin", Begin}, {"sweep", Sweep}, {"bind", Bind}, {"predict", Predict}};
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].function, NULL, &function) != napi_ok ||
        napi_set_named_property(env, exports, functions[i].name, function) != napi_ok)
      return NULL;
  }
  return exports;
}
