/** Composes the services: each alone, or all in one process. */
@NullMarked
package io.kvtier.deploy.service;

import org.jspecify.annotations.NullMarked;
