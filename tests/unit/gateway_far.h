/* Between the two halves of the gateway's test world. */
#ifndef STOA_TESTS_GATEWAY_FAR_H
#define STOA_TESTS_GATEWAY_FAR_H

#include "gateway_world.h"

#define CLUSTER 7

/* The port of the gateway's hub. */
int far_gateway_send(void *ctx, uint32_t peer, const void *packet, size_t size);
void far_begin(unsigned n_routers); /* starts and connects everybody */
void far_end(void);
void far_carry(void); /* hands over what is on its way now */
void far_turn(void);
bool far_idle(void); /* nothing is on its way */

#endif
