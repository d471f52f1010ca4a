/** Plans without services: what a session would get, and why. */
@NullMarked
package io.kvtier.deploy.plan;

import org.jspecify.annotations.NullMarked;
