/* SPDX-License-Identifier: Apache-2.0 */
/* Stands in for lwIP's header of this name. */
#include <netdb.h>
