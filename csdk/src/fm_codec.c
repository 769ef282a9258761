/* SPDX-License-Identifier: Apache-2.0 */
/* FlatBuffers (binary format: https://flatbuffers.dev/internals/). A message is laid out front to back:
 *
 *   root offset, file identifier | vtable and table of Message | vtable and table of the body | strings, vectors | bulk
 */
#include "fedmote/fm_codec.h"

#include <string.h>

#include "fm_bits.h"
#include "fm_wire_tables.h"

#define BODY_OFFSET_AT 20u
#define TYPE_AT 24u
#define BODY_VTABLE_AT 28u
#define LARGEST_MESSAGE 0x7FFFFFFFu /* FlatBuffers' offsets are 31 bits */
#define LARGEST_PART 0x0FFFFFFFu    /* elements of a vector: with 8 bytes each they fit a message */
#define MOST_PADDING 7u             /* another encoder may pad the end to its largest alignment */

static uint32_t form_of(uint32_t i) { return (uint32_t)fm_fields[i] >> 8; }

static uint32_t width_of(uint32_t form) { return (uint32_t)1u << (form & 3u); }

static uint32_t align4(uint32_t at) { return (at + 3u) & ~3u; }

static void put(uint8_t *out, uint32_t value, uint32_t width) {
  for (uint32_t i = 0u; i < width; i++) {
    out[i] = (uint8_t)(value >> (8u * i));
  }
}

static uint32_t get(const uint8_t *in, uint32_t width) {
  uint32_t value = 0u;
  for (uint32_t i = width; i != 0u; i--) {
    value = (value << 8) | in[i - 1u];
  }
  return value;
}

/* Return the offset of the low `width` bytes in a uint32_t of this machine. Scalars are copied between struct and
 * number as bytes, which works for float and bool, too. */
static uint32_t low_bytes(uint32_t width) { return fm_little_endian() ? 0u : (4u - width); }

/* ---- encoding ---- */

typedef struct {
  uint32_t form;
  uint32_t width; /* in the table */
  uint32_t value; /* of a scalar; of a view the number of elements */
  fm_bytes_t view;
  bool present;
} field_t;

static void load_field(const fm_message_t *message, uint32_t i, field_t *field) {
  const uint8_t *member = &((const uint8_t *)message)[fm_fields[i] & 0xFFu];
  field->form = form_of(i);
  field->width = width_of(field->form);
  field->value = 0u;
  if ((field->form & FM_FORM_OFFSET) != 0u) {
    (void)memcpy(&field->view, member, sizeof field->view);
    field->value = field->view.size >> (field->form >> 6);
    field->present = (field->view.size != 0u) || ((field->form & FM_FORM_LAST) != 0u);
  } else {
    (void)memcpy(&((uint8_t *)&field->value)[low_bytes(field->width)], member, (size_t)field->width);
    field->present = field->value != fm_defaults[field->form >> 3];
  }
}

/* Bytes that a field takes outside the table, with length, terminator and padding; for bulk data the length only. */
static uint32_t tail_size(const field_t *field) {
  uint32_t size = 0u;
  if ((field->form & FM_FORM_OFFSET) == 0u) {
    /* the table holds the whole field */
  } else if ((field->form & FM_FORM_LAST) != 0u) {
    size = 4u;
  } else {
    size = align4(4u + field->view.size + (((field->form & FM_FORM_TERMINATED) != 0u) ? 1u : 0u));
  }
  return size;
}

typedef struct {
  uint32_t first; /* of the body's fields */
  uint32_t last;  /* behind the last one that is present */
  uint32_t table_at;
  uint32_t tail_at;
  uint32_t size;
} layout_t;

static fm_status_t lay_out(const fm_message_t *message, layout_t *layout) {
  const uint32_t end = fm_fields_start[message->type + 1u];
  fm_status_t status = FM_OK;
  uint32_t table = 4u;
  uint32_t tail = 0u;
  layout->first = fm_fields_start[message->type];
  layout->last = layout->first;
  for (uint32_t i = layout->first; i < end; i++) {
    field_t field;
    load_field(message, i, &field);
    if (field.present) {
      layout->last = i + 1u;
      table += field.width;
      tail += tail_size(&field);
      if (((field.form & FM_FORM_OFFSET) != 0u) && (field.view.size > LARGEST_PART)) {
        status = FM_ERR_BUFFER;
      }
    } else if ((field.form & (FM_FORM_OFFSET | FM_FORM_REQUIRED)) == (FM_FORM_OFFSET | FM_FORM_REQUIRED)) {
      status = FM_ERR_ARGUMENT;
    } else {
      /* left out */
    }
  }
  layout->table_at = align4(BODY_VTABLE_AT + 4u + (2u * (layout->last - layout->first)));
  layout->tail_at = layout->table_at + table;
  layout->size = align4(layout->tail_at) + tail;
  return status;
}

/* Place wide fields first, so that none needs padding. */
static void write_body(const fm_message_t *message, const layout_t *layout, uint8_t *out) {
  uint32_t at = layout->table_at + 4u;
  uint32_t tail_at = align4(layout->tail_at);
  put(&out[BODY_VTABLE_AT], 4u + (2u * (layout->last - layout->first)), 2u);
  put(&out[BODY_VTABLE_AT + 2u], layout->tail_at - layout->table_at, 2u);
  put(&out[layout->table_at], layout->table_at - BODY_VTABLE_AT, 4u);
  for (uint32_t width = 4u; width != 0u; width /= 2u) {
    for (uint32_t i = layout->first; i < layout->last; i++) {
      field_t field;
      load_field(message, i, &field);
      if (field.present && (field.width == width)) {
        uint32_t value = field.value;
        put(&out[BODY_VTABLE_AT + 4u + (2u * (i - layout->first))], at - layout->table_at, 2u);
        if ((field.form & FM_FORM_OFFSET) != 0u) {
          put(&out[tail_at], value, 4u);
          value = tail_at - at;
          if ((field.form & FM_FORM_LAST) == 0u) {
            (void)memcpy(&out[tail_at + 4u], field.view.data, (size_t)field.view.size);
          }
          tail_at += tail_size(&field);
        }
        put(&out[at], value, width);
        at += width;
      }
    }
  }
}

fm_status_t fm_message_encode(const fm_message_t *message, uint8_t *out, uint32_t capacity, uint32_t *size) {
  /* Up to the body: offset of Message, identifier, its vtable (8 bytes, table of 12, type at 8, body at 4), its table.
   */
  static const uint8_t start[BODY_VTABLE_AT] = {
      16u, 0u, 0u, 0u, FM_IDENTIFIER, 8u, 0u, 12u, 0u, 8u, 0u, 4u, 0u, 8u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u};
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((message != NULL) && (size != NULL) && (message->type >= 1u) && (message->type <= FM_BODY_LAST)) {
    layout_t layout;
    status = lay_out(message, &layout);
    *size = layout.size;
    if ((status == FM_OK) && (out != NULL)) {
      if (layout.size > capacity) {
        status = FM_ERR_BUFFER;
      } else {
        (void)memset(out, 0, (size_t)layout.size);
        (void)memcpy(out, start, sizeof start);
        put(&out[BODY_OFFSET_AT], layout.table_at - BODY_OFFSET_AT, 4u);
        out[TYPE_AT] = message->type;
        write_body(message, &layout, out);
      }
    }
  }
  return status;
}

/* ---- verifying and decoding ---- */

typedef struct {
  const uint8_t *bytes;
  uint32_t available;
  uint32_t total;
  fm_message_t *out;
  fm_status_t status; /* the first fault; nothing is read after it */
} reader_t;

static void require(reader_t *reader, bool met) {
  if (!met && (reader->status == FM_OK)) {
    reader->status = FM_ERR_MESSAGE;
  }
}

/* Tell whether [at, at + size) may be read. */
static bool check(reader_t *reader, uint32_t at, uint32_t size) {
  require(reader, (at <= reader->total) && (size <= (reader->total - at)));
  if ((reader->status == FM_OK) && ((at + size) > reader->available)) {
    reader->status = FM_AGAIN;
  }
  return reader->status == FM_OK;
}

/* Read a number of `width` bytes. It is 0 if it is not aligned or not within the message. */
static uint32_t read_number(reader_t *reader, uint32_t at, uint32_t width) {
  require(reader, (at & (width - 1u)) == 0u);
  return check(reader, at, width) ? get(&reader->bytes[at], width) : 0u;
}

/* Follow the offset at `at`, which must lead forward. */
static uint32_t follow(reader_t *reader, uint32_t at) {
  const uint32_t offset = read_number(reader, at, 4u);
  require(reader, (offset - 1u) < (reader->total - at));
  return at + offset;
}

static void read_scalar(reader_t *reader, uint32_t form, uint32_t at, uint8_t *member) {
  const uint32_t width = width_of(form);
  const uint32_t limit = fm_limits[form >> 3];
  uint32_t value = fm_defaults[form >> 3];
  if (at != 0u) {
    value = read_number(reader, at, width);
  }
  require(reader, (limit == 0u) || (value < limit));
  (void)memcpy(member, &((const uint8_t *)&value)[low_bytes(width)], (size_t)width);
}

static void read_view(reader_t *reader, uint32_t form, uint32_t target, uint8_t *member) {
  const uint32_t length = read_number(reader, target, 4u);
  const uint32_t at = target + 4u;
  fm_bytes_t view;
  require(reader, length <= LARGEST_PART);
  view.size = length << (form >> 6);
  if ((form & FM_FORM_LAST) != 0u) {
    /* Bulk data need not be there yet, but must be the last thing in the message. */
    require(reader, (reader->total - at - view.size) <= MOST_PADDING);
    reader->out->bulk_offset = at;
  } else {
    (void)check(reader, at, view.size);
    require(reader, ((form & FM_FORM_TERMINATED) == 0u) || (read_number(reader, at + view.size, 1u) == 0u));
  }
  if (reader->status == FM_OK) {
    view.data = &reader->bytes[at];
    (void)memcpy(member, &view, sizeof view);
  }
}

/* Read the table at `at`, which has the fields of body `type`, or of Message for 0. */
static void read_table(reader_t *reader, uint32_t at, uint32_t type) {
  /* The table begins with the signed distance back to its vtable. Unsigned subtraction handles both signs. A vtable
   * outside the message fails the checks below. */
  const uint32_t vtable = at - read_number(reader, at, 4u);
  const uint32_t vtable_size = read_number(reader, vtable, 2u);
  const uint32_t table_size = read_number(reader, vtable + 2u, 2u);
  const uint32_t first = fm_fields_start[type];
  const uint32_t count = fm_fields_start[type + 1u] - first;
  require(reader, ((vtable_size & 1u) == 0u) && (fm_smaller(vtable_size, table_size) >= 4u));
  (void)check(reader, vtable, vtable_size);
  (void)check(reader, at, table_size);
  for (uint32_t i = 0u; (reader->status == FM_OK) && (i < count); i++) {
    const uint32_t form = form_of(first + i);
    const uint32_t entry = 4u + (2u * i);
    uint8_t *member = &((uint8_t *)reader->out)[fm_fields[first + i] & 0xFFu];
    uint32_t place = (entry < vtable_size) ? read_number(reader, vtable + entry, 2u) : 0u;
    if (place != 0u) {
      require(reader, (place >= 4u) && ((place + width_of(form)) <= table_size));
      place += at;
    }
    if ((form & FM_FORM_OFFSET) == 0u) {
      read_scalar(reader, form, place, member);
    } else if (place == 0u) {
      require(reader, (form & FM_FORM_REQUIRED) == 0u);
    } else if (form == FM_FORM_BODY) {
      reader->out->bulk_offset = follow(reader, place); /* the body's position, until the bulk data's is known */
    } else {
      read_view(reader, form, follow(reader, place), member);
    }
  }
}

fm_status_t fm_message_decode(const uint8_t *bytes, uint32_t available, uint32_t total, fm_message_t *out) {
  static const uint8_t identifier[4] = {FM_IDENTIFIER};
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((bytes != NULL) && (out != NULL) && (available <= total)) {
    reader_t reader = {bytes, available, total, out, FM_OK};
    (void)memset(out, 0, sizeof *out);
    require(&reader, total <= LARGEST_MESSAGE);
    require(&reader, check(&reader, 4u, 4u) && (memcmp(&bytes[4], identifier, sizeof identifier) == 0));
    read_table(&reader, follow(&reader, 0u), 0u);
    require(&reader, out->type != FM_BODY_NONE);
    if (reader.status == FM_OK) {
      const uint32_t body_at = out->bulk_offset;
      out->bulk_offset = 0u;
      read_table(&reader, body_at, out->type);
    }
    status = reader.status;
  }
  return status;
}

fm_range_t fm_range_at(fm_bytes_t ranges, uint32_t index) {
  fm_range_t range;
  range.first = get(&ranges.data[8u * index], 4u);
  range.count = get(&ranges.data[(8u * index) + 4u], 4u);
  return range;
}
