/* SPDX-License-Identifier: Apache-2.0 */
/* FlatBuffers (binary format: https://flatbuffers.dev/internals/). A message is laid out front to back:
 *
 *   root offset, file identifier | vtable and table of Message | vtable and table of the body | strings, vectors | bulk
 */
#include "fedmote/fm_codec.h"

#include <string.h>

#include "fm_wire_tables.h"

#define MESSAGE_VTABLE_AT 8u
#define MESSAGE_AT 16u
#define MESSAGE_TYPE_FIELD 0u
#define MESSAGE_BODY_FIELD 1u
#define BODY_VTABLE_AT 28u
#define LARGEST_MESSAGE 0x7FFFFFFFu /* FlatBuffers' offsets are 31 bits */
#define MOST_PADDING 7u             /* another encoder may pad the end to its largest alignment */

typedef struct {
  const fm_field_t *fields;
  uint32_t count;
} body_fields_t;

static body_fields_t fields_of(uint8_t type) {
  body_fields_t body;
  body.fields = &fm_fields[fm_fields_start[type - 1u]];
  body.count = (uint32_t)fm_fields_start[type] - fm_fields_start[type - 1u];
  return body;
}

static uint32_t kind_of(const fm_field_t *field) { return field->kind & ~FM_KIND_REQUIRED & 0xFFu; }

static bool is_offset(const fm_field_t *field) { return (field->kind & FM_KIND_OFFSET) != 0u; }

static uint32_t width_of(const fm_field_t *field) { return is_offset(field) ? 4u : kind_of(field); }

static uint32_t align4(uint32_t at) { return (at + 3u) & ~3u; }

static void put(uint8_t *out, uint32_t value, uint32_t width) {
  for (uint32_t i = 0u; i < width; i++) {
    out[i] = (uint8_t)(value >> (8u * i));
  }
}

static uint32_t get(const uint8_t *in, uint32_t width) {
  uint32_t value = 0u;
  for (uint32_t i = 0u; i < width; i++) {
    value |= (uint32_t)in[i] << (8u * i);
  }
  return value;
}

/* Scalars cross between struct and number by their bytes, which serves float and bool alike. */
static uint32_t scalar_from(const uint8_t *member, uint32_t width) {
  uint8_t byte;
  uint16_t half;
  uint32_t word;
  if (width == 1u) {
    (void)memcpy(&byte, member, 1u);
    word = byte;
  } else if (width == 2u) {
    (void)memcpy(&half, member, 2u);
    word = half;
  } else {
    (void)memcpy(&word, member, 4u);
  }
  return word;
}

static void scalar_to(uint8_t *member, uint32_t value, uint32_t width) {
  const uint8_t byte = (uint8_t)value;
  const uint16_t half = (uint16_t)value;
  if (width == 1u) {
    (void)memcpy(member, &byte, 1u);
  } else if (width == 2u) {
    (void)memcpy(member, &half, 2u);
  } else {
    (void)memcpy(member, &value, 4u);
  }
}

static fm_bytes_t view_from(const uint8_t *member) {
  fm_bytes_t view;
  (void)memcpy(&view, member, sizeof view);
  return view;
}

/* ---- encoding ---- */

typedef struct {
  const uint8_t *members; /* the body's struct */
  body_fields_t body;
  uint16_t place[FM_FIELDS_MOST]; /* in the body's table; 0: left out */
  uint32_t vtable_size;
  uint32_t table_at;
  uint32_t table_size;
} layout_t;

static bool is_present(const fm_field_t *field, const uint8_t *members) {
  const uint8_t *member = &members[field->offset];
  bool present;
  if (kind_of(field) == FM_KIND_BULK) {
    present = true;
  } else if (is_offset(field)) {
    present = view_from(member).size != 0u;
  } else {
    present = scalar_from(member, width_of(field)) != fm_defaults[field->default_index];
  }
  return present;
}

/* Place the fields that are present, wide ones first so that none needs padding. False: a required one is missing. */
static bool lay_out(layout_t *layout) {
  bool complete = true;
  uint32_t at = 4u;
  uint32_t used = 0u;
  (void)memset(layout->place, 0, sizeof layout->place);
  for (uint32_t width = 4u; width != 0u; width /= 2u) {
    for (uint32_t i = 0u; i < layout->body.count; i++) {
      const fm_field_t *field = &layout->body.fields[i];
      const bool present = is_present(field, layout->members);
      if (present && (width_of(field) == width)) {
        layout->place[i] = (uint16_t)at;
        at += width;
        used = (i >= used) ? (i + 1u) : used;
      }
      complete = complete && (present || ((field->kind & FM_KIND_REQUIRED) == 0u));
    }
  }
  layout->vtable_size = 4u + (2u * used);
  layout->table_at = align4(BODY_VTABLE_AT + layout->vtable_size);
  layout->table_size = at;
  return complete;
}

/* Bytes of what an offset field leads to, with length, terminator and padding; of bulk data the length alone. */
static uint32_t tail_size(const fm_field_t *field, uint32_t size) {
  uint32_t bytes = 4u;
  if (kind_of(field) != FM_KIND_BULK) {
    bytes = align4(4u + size + ((kind_of(field) == FM_KIND_STRING) ? 1u : 0u));
  }
  return bytes;
}

/* Where the head ends. The schema gives a body one bulk field at most, and makes it the last. */
static uint32_t head_size(const layout_t *layout) {
  uint32_t at = align4(layout->table_at + layout->table_size);
  for (uint32_t i = 0u; i < layout->body.count; i++) {
    const fm_field_t *field = &layout->body.fields[i];
    if (is_offset(field) && (layout->place[i] != 0u)) {
      const uint32_t size = view_from(&layout->members[field->offset]).size;
      /* Refused by the capacity check: no head is that large. */
      at = (size > LARGEST_MESSAGE - at - 8u) ? LARGEST_MESSAGE : (at + tail_size(field, size));
    }
  }
  return at;
}

static void write_message(uint8_t *out, uint8_t type, uint32_t body_at) {
  put(&out[0], MESSAGE_AT, 4u);
  (void)memcpy(&out[4], fm_identifier, sizeof fm_identifier);
  put(&out[MESSAGE_VTABLE_AT], 8u, 2u);
  put(&out[MESSAGE_VTABLE_AT + 2u], 12u, 2u);
  put(&out[MESSAGE_VTABLE_AT + 4u + (2u * MESSAGE_TYPE_FIELD)], 8u, 2u);
  put(&out[MESSAGE_VTABLE_AT + 4u + (2u * MESSAGE_BODY_FIELD)], 4u, 2u);
  put(&out[MESSAGE_AT], MESSAGE_AT - MESSAGE_VTABLE_AT, 4u);
  put(&out[MESSAGE_AT + 4u], body_at - (MESSAGE_AT + 4u), 4u);
  out[MESSAGE_AT + 8u] = type;
}

static void write_body(uint8_t *out, const layout_t *layout) {
  uint32_t tail_at = align4(layout->table_at + layout->table_size);
  put(&out[BODY_VTABLE_AT], layout->vtable_size, 2u);
  put(&out[BODY_VTABLE_AT + 2u], layout->table_size, 2u);
  put(&out[layout->table_at], layout->table_at - BODY_VTABLE_AT, 4u);
  for (uint32_t i = 0u; i < layout->body.count; i++) {
    const fm_field_t *field = &layout->body.fields[i];
    const uint8_t *member = &layout->members[field->offset];
    const uint32_t at = layout->table_at + layout->place[i];
    if (layout->place[i] == 0u) {
      /* left out */
    } else if (is_offset(field)) {
      const fm_bytes_t view = view_from(member);
      put(&out[at], tail_at - at, 4u);
      put(&out[tail_at], view.size / field->extra, 4u);
      if (kind_of(field) != FM_KIND_BULK) {
        (void)memcpy(&out[tail_at + 4u], view.data, view.size);
      }
      tail_at += tail_size(field, view.size);
    } else {
      put(&out[at], scalar_from(member, width_of(field)), width_of(field));
    }
    if (layout->place[i] != 0u) {
      put(&out[BODY_VTABLE_AT + 4u + (2u * i)], layout->place[i], 2u);
    }
  }
}

fm_status_t fm_message_encode(const fm_message_t *message, uint8_t *out, uint32_t capacity, uint32_t *size) {
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((message != NULL) && (size != NULL) && (message->type >= 1u) && (message->type <= FM_BODY_LAST)) {
    layout_t layout;
    layout.members = (const uint8_t *)&message->body;
    layout.body = fields_of(message->type);
    if (lay_out(&layout)) {
      *size = head_size(&layout);
      status = ((out == NULL) || (*size <= capacity)) ? FM_OK : FM_ERR_BUFFER;
    }
    if ((status == FM_OK) && (out != NULL)) {
      (void)memset(out, 0, *size);
      write_message(out, message->type, layout.table_at);
      write_body(out, &layout);
    }
  }
  return status;
}

/* ---- verifying and decoding ---- */

typedef struct {
  const uint8_t *bytes;
  uint32_t available;
  uint32_t total;
  fm_status_t status; /* the first thing that was wrong; nothing is read after it */
} reader_t;

typedef struct {
  uint32_t at;
  uint32_t size;
  uint32_t vtable;
  uint32_t vtable_size;
} table_t;

static void fail(reader_t *reader) {
  if (reader->status == FM_OK) {
    reader->status = FM_ERR_MESSAGE;
  }
}

/* May [at, at + size) be read? */
static bool check(reader_t *reader, uint32_t at, uint32_t size) {
  if ((reader->status == FM_OK) && ((at > reader->available) || (size > (reader->available - at)))) {
    const bool later = (at <= reader->total) && (size <= (reader->total - at));
    reader->status = later ? FM_AGAIN : FM_ERR_MESSAGE;
  }
  return reader->status == FM_OK;
}

static uint32_t read_number(reader_t *reader, uint32_t at, uint32_t width) {
  uint32_t value = 0u;
  if ((at % width) != 0u) {
    fail(reader);
  }
  if (check(reader, at, width)) {
    value = get(&reader->bytes[at], width);
  }
  return value;
}

/* Follow the offset at `at`; it leads forward, to a place aligned to 4. */
static uint32_t follow(reader_t *reader, uint32_t at) {
  const uint32_t offset = read_number(reader, at, 4u);
  if ((offset == 0u) || (offset > (reader->total - at)) || (((at + offset) % 4u) != 0u)) {
    fail(reader);
  }
  return (reader->status == FM_OK) ? (at + offset) : 0u;
}

static table_t read_table(reader_t *reader, uint32_t at) {
  table_t table = {0};
  /* A signed distance back to the vtable. In two's complement one subtraction serves both signs; what leaves the
   * message fails below. */
  table.at = at;
  table.vtable = at - read_number(reader, at, 4u);
  table.vtable_size = read_number(reader, table.vtable, 2u);
  table.size = (reader->status == FM_OK) ? read_number(reader, table.vtable + 2u, 2u) : 0u;
  if ((table.vtable_size < 4u) || ((table.vtable_size % 2u) != 0u) || (table.size < 4u)) {
    fail(reader);
  }
  (void)check(reader, table.vtable, table.vtable_size);
  (void)check(reader, at, table.size);
  return table;
}

/* Where field `id` of `width` bytes is; 0 when it is absent. */
static uint32_t field_at(reader_t *reader, const table_t *table, uint32_t id, uint32_t width) {
  uint32_t at = 0u;
  if ((reader->status == FM_OK) && ((4u + (2u * id)) < table->vtable_size)) {
    const uint32_t place = read_number(reader, table->vtable + 4u + (2u * id), 2u);
    if (place != 0u) {
      at = table->at + place;
      if ((place < 4u) || ((place + width) > table->size) || ((at % width) != 0u)) {
        fail(reader);
        at = 0u;
      }
    }
  }
  return at;
}

static void read_scalar(reader_t *reader, const fm_field_t *field, uint32_t at, uint8_t *member) {
  uint32_t value = fm_defaults[field->default_index];
  if (at != 0u) {
    value = read_number(reader, at, width_of(field));
    if ((field->extra != 0u) && (value >= field->extra)) {
      fail(reader);
    }
  }
  scalar_to(member, value, width_of(field));
}

/* Bulk data need not be there yet, but must be the last thing in the message. */
static void check_bulk(reader_t *reader, uint32_t at, uint32_t size) {
  if ((at > reader->total) || (size > (reader->total - at)) || ((reader->total - at - size) > MOST_PADDING)) {
    fail(reader);
  }
}

static void read_vector(reader_t *reader, const fm_field_t *field, uint32_t field_place, fm_message_t *out,
                        uint8_t *member) {
  const uint32_t at = follow(reader, field_place);
  const uint32_t length = read_number(reader, at, 4u);
  fm_bytes_t view;
  if (length > (LARGEST_MESSAGE / 8u)) {
    fail(reader);
  }
  view.size = (reader->status == FM_OK) ? (length * field->extra) : 0u;
  if (kind_of(field) == FM_KIND_BULK) {
    check_bulk(reader, at + 4u, view.size);
    out->bulk_offset = at + 4u;
  } else {
    const uint32_t terminator = (kind_of(field) == FM_KIND_STRING) ? 1u : 0u;
    if (check(reader, at + 4u, view.size + terminator) && (terminator != 0u) &&
        (reader->bytes[at + 4u + view.size] != 0u)) {
      fail(reader);
    }
  }
  view.data = (reader->status == FM_OK) ? &reader->bytes[at + 4u] : NULL;
  (void)memcpy(member, &view, sizeof view);
}

static void read_body(reader_t *reader, uint32_t at, fm_message_t *out) {
  const body_fields_t body = fields_of(out->type);
  const table_t table = read_table(reader, at);
  uint8_t *members = (uint8_t *)&out->body;
  for (uint32_t i = 0u; (reader->status == FM_OK) && (i < body.count); i++) {
    const fm_field_t *field = &body.fields[i];
    const uint32_t place = field_at(reader, &table, i, width_of(field));
    if (!is_offset(field)) {
      read_scalar(reader, field, place, &members[field->offset]);
    } else if (place != 0u) {
      read_vector(reader, field, place, out, &members[field->offset]);
    } else if ((field->kind & FM_KIND_REQUIRED) != 0u) {
      fail(reader);
    } else {
      /* absent: the view is empty already */
    }
  }
}

static void read_message(reader_t *reader, fm_message_t *out) {
  table_t table;
  uint32_t type_at;
  uint32_t body_at;
  (void)memset(out, 0, sizeof *out);
  if (check(reader, 4u, 4u) && (memcmp(&reader->bytes[4], fm_identifier, sizeof fm_identifier) != 0)) {
    fail(reader);
  }
  table = read_table(reader, follow(reader, 0u));
  type_at = field_at(reader, &table, MESSAGE_TYPE_FIELD, 1u);
  body_at = field_at(reader, &table, MESSAGE_BODY_FIELD, 4u);
  if ((type_at == 0u) || (body_at == 0u)) {
    fail(reader);
  }
  out->type = (uint8_t)read_number(reader, type_at, 1u);
  if ((out->type < 1u) || (out->type > FM_BODY_LAST)) {
    fail(reader);
  }
  if (reader->status == FM_OK) {
    read_body(reader, follow(reader, body_at), out);
  }
}

fm_status_t fm_message_decode(const uint8_t *bytes, uint32_t available, uint32_t total, fm_message_t *out) {
  fm_status_t status = FM_ERR_ARGUMENT;
  if ((bytes != NULL) && (out != NULL) && (available <= total)) {
    reader_t reader = {bytes, available, total, (total <= LARGEST_MESSAGE) ? FM_OK : FM_ERR_MESSAGE};
    read_message(&reader, out);
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
